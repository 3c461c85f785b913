"""The pool worker: an HTTP application around one residency, in one process.

Must not know Ray, Envoy or the controller.
"""
