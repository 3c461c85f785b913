"""Benchmarks: programs that are run from the repository's root as `python -m bench.NAME`."""
