"""Fuzzing of everything that reads bytes from outside: `make fuzz MINUTES=60`."""
