"""What a node asks the core server of its operator: whether a party may come in, and whether it may stay."""
