"""What a server says of itself, over gRPC and REST alike."""

from __future__ import annotations

import importlib.metadata

from meshserve.core.values import snapshots

NAME = "meshserve"
VERSION = importlib.metadata.version(NAME)
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


def is_ready(snap: snapshots.GatewaySnapshot) -> bool:
    """Whether there is a worker that can answer. Where there is none to wait for, an LLM will do: its requests are held until it can."""
    workers = [member for members in snap.pools.values() for member in members]
    return any(member.ready for member in workers) if workers else bool(snap.llms)
