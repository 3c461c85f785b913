"""The edge to model libraries: one file per library, which alone imports it, when it is needed.

Nothing here decides what is loaded or freed, and nothing here knows the wire.
"""
