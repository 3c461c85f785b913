"""The edge to artifacts, which come to this node as files that do not change, and to repositories.

Nothing here knows what a model's files mean to a runtime, and nothing here decides what is loaded.
"""
