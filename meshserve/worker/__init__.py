"""The pool worker: an ASGI app around one residency. It knows nothing of Ray, of Envoy or of the controller."""
