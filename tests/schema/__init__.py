"""The served documents held to a real node by schemathesis."""
