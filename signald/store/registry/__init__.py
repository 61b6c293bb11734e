"""What is kept of nodes, workers and the waiting line: operations, rules, and the Lua script that says the rules to Redis."""
