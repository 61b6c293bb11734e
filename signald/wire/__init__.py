"""The words of the wire: messages, codec and close codes of the subprotocol `signald.v1`."""
