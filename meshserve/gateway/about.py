"""What a server says of itself, over gRPC and REST alike."""

from __future__ import annotations

import importlib.metadata

from meshserve.core import snapshot

NAME = "meshserve"
VERSION = importlib.metadata.version(NAME)
EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics")


def is_ready(snap: snapshot.GatewaySnapshot) -> bool:
    """Whether there is a worker that can answer."""
    return any(member.ready for members in snap.pools.values() for member in members)
