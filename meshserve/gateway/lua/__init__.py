"""The Lua scripts that run inside Envoy. Must not know Envoy's configuration or our routes."""
