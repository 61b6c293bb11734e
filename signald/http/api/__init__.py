"""The HTTP API of the public listener: how requests are read and answers written. What is done is the service's."""
