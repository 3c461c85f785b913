"""The decisions, as pure functions and state machines: no I/O, clock, chance, threads or async.

Nothing here may import an edge or a library that does I/O; time and chance are arguments.
"""
