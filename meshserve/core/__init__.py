"""Decisions only: values in, values out. No I/O, no clock, no chance, no threads, no async.

Nothing here may import an edge or any library that touches the outside; time and chance are arguments.
"""
