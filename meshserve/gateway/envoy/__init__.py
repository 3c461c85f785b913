"""Envoy: its configuration from a snapshot, and its process. Must not know the sidecar."""

from __future__ import annotations

Json = dict[str, object]
"""A part of Envoy's configuration, as JSON has it (https://www.envoyproxy.io/docs, API v3)."""
