"""The pages held to the code: ways hop by hop, lists that are complete, and drawings that are rendered."""
