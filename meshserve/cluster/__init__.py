"""The edge to Ray: actors around the worker, gateway, LLM replica and controller.

The only folder that imports `ray`. No request of a client passes through it.
"""
