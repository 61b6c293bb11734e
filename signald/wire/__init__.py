"""What is said: messages, codec and close codes of the subprotocol `signald.v1`."""
