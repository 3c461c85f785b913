"""The frozen snapshot of the mesh from which a gateway is configured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshserve.core.values import model


@dataclass(frozen=True, slots=True)
class RingMember:
    """A worker or replica as a gateway sees it.

    A worker that is not ready keeps its place on the ring, so that it later serves the same models.
    """

    worker_id: str
    endpoint: model.Endpoint
    ready: bool = True


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A client's API key. Only `admin` clients may call the management API."""

    client: str
    key: str
    admin: bool = False


@dataclass(frozen=True, slots=True)
class LlmRoute:
    """One LLM as a gateway sees it: all its names, and its replicas as `members`.

    `aliases` are those of the names that engines do not know. `is_held`: no replica is ready, so
    each request asks the controller whether it may wait.
    """

    name: str
    names: tuple[str, ...]
    members: tuple[RingMember, ...] = ()
    is_held: bool = False
    wait_s_max: float = 600.0
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HotRoute:
    """A busy model, served by several workers of its pool. `names` are its own and its aliases."""

    pool: str
    names: tuple[str, ...]
    worker_ids: tuple[str, ...]

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.names[0]


@dataclass(frozen=True, slots=True)
class GatewaySnapshot:
    """All that a gateway's configuration is computed from.

    `routes` has the pool of each model or alias that is not in `default_pool`. Without `keys`
    every client may call everything. `revision` grows with each snapshot that differs from the last
    one. `cors_origins` are the web pages that may call from a browser. `workers_wanted` counts the
    workers that must exist; one that still starts is not in `pools`. `is_native`: requests go to
    workers as frames, by the file `module`, which the gateway itself fills in where it has one.
    `is_leaving`: the node is being drained, so the gateway is not ready, and answers all the same.
    `held` are the pools that have no ready worker and whose requests wait for one, each with the
    longest wait in seconds.
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
    llms: tuple[LlmRoute, ...] = ()
    hot: tuple[HotRoute, ...] = ()
    cors_origins: tuple[str, ...] = ()
    workers_wanted: int = 0
    is_native: bool = False
    module: str = ""
    is_leaving: bool = False
    held: Mapping[str, float] = field(default_factory=dict)
