"""Transcripts that each SDK replays, and a server that plays scripts: what all SDKs have in common. See README.md."""
