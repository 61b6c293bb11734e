"""The decisions: pure and synchronous; `now` and randomness are arguments."""
