"""Envoy's module in C, and its build. Must not know Envoy's configuration or our routes."""
