"""The edge to artifacts, which are brought to this node as unchanging files, and to repositories.

This package neither interprets a model's files nor decides which models are loaded.
"""
