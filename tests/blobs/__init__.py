"""Media: memory, a directory, S3."""
