"""The edge to artifacts: wherever they are, they come to this node as files that nobody changes; and the edge to repositories of models.

Nothing here knows what a model's files mean to a runtime, and nothing here decides what is loaded.
"""
