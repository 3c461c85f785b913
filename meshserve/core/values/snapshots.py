"""Frozen pictures of the mesh for its edges to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshserve.core.values import model


@dataclass(frozen=True, slots=True)
class RingMember:
    """A worker as a gateway sees it. A member that is not ready keeps its place on the ring, but gets no requests."""

    worker_id: str
    endpoint: model.Endpoint
    ready: bool = True


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client's credential. Only `admin` clients may call the management paths."""

    client: str
    key: str
    admin: bool = False


@dataclass(frozen=True, slots=True)
class LlmRoute:
    """One LLM as a gateway sees it. `names` are all that clients may call it; `members` its replicas.

    While `is_held` no replica is ready, and every request asks the controller first whether it may wait.
    """

    name: str
    names: tuple[str, ...]
    members: tuple[RingMember, ...] = ()
    is_held: bool = False
    wait_s_max: float = 600.0


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A model whose requests go to the least busy of several workers of its pool. `names` are its own and all aliases."""

    pool: str
    names: tuple[str, ...]
    worker_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's own."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class GatewaySnapshot:
    """All that one gateway's configuration is computed from.

    `routes` names the pool of a model or alias only where it is not `default_pool`. Without `keys` every client may do everything.
    `ring_sizes` are the points on the pools' rings where they are not placement's least. `revision` tells a snapshot from earlier ones.
    """

    listen: str
    node: str
    pools: Mapping[str, tuple[RingMember, ...]]
    default_pool: str = "default"
    routes: Mapping[str, str] = field(default_factory=dict)
    controller: model.Endpoint | None = None
    request_bytes_max: int = 64 << 20
    keys: tuple[ApiKey, ...] = ()
    revision: int = 0
    ring_sizes: Mapping[str, int] = field(default_factory=dict)
    llms: tuple[LlmRoute, ...] = ()
    hot: tuple[HotRoute, ...] = ()
