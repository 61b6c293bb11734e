"""The one error of the benchmarks."""


class BenchError(Exception):
    """A run that yields no figure: the server failed, or what it sent was not what a correct relay sends."""
