"""The edge to model libraries: one file per library, the only one that imports it, and only when such a model is loaded.

Nothing here decides what is loaded or freed; nothing here knows the wire.
"""
