"""What is decided: pure and synchronous; `now` and randomness are arguments."""
