"""What is kept of a session: its operations, rules, and the Lua scripts that say the rules to Redis."""
