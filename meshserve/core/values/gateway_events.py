"""What happens to the gateways, of which each node has one: events that the mesh handles."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core.values import nodes as cluster_nodes
from meshserve.core.values import reports


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """The living nodes of the cluster."""

    nodes: tuple[cluster_nodes.ClusterNode, ...]


@dataclass(frozen=True, slots=True)
class GatewayReported:
    """A node's gateway serves and has reported."""

    report: reports.GatewayReport


@dataclass(frozen=True, slots=True)
class GatewayConfigured:
    """A node's gateway serves by the snapshot of this revision."""

    node: str
    revision: int


@dataclass(frozen=True, slots=True)
class GatewayLost:
    """A node's gateway has ended without an order, or did not start."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class GatewayStopped:
    """A node's gateway has answered its requests and ended, after StopGateway."""

    node: str


GatewayEvent = NodesSeen | GatewayReported | GatewayConfigured | GatewayLost | GatewayStopped
