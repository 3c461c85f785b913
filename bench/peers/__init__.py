"""Servers to compare with. Each runs as a script in an environment without this repository."""
