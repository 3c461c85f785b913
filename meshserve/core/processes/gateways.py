"""The gateways there are against the nodes that should have one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from meshserve.core.values import commands, events, reports

RESTART_DELAY_S_MAX = 10.0


@dataclass(slots=True)
class GatewayRecord:
    """One node's gateway as the mesh knows it. `configured` is the revision of the snapshot that it serves by, -1 if by none."""

    node: str
    state: Literal["starting", "ready", "lost", "draining"] = "starting"
    restarts: int = 0
    losses: int = 0
    retry_at_s: float = 0.0
    reason: str = ""
    report: reports.GatewayReport | None = None
    configured: int = -1


class Gateways:
    """All gateways by node. `revision` counts the snapshots that they were to take; `needed` is the last without which some can't serve."""

    def __init__(self) -> None:
        self.records: dict[str, GatewayRecord] = {}
        self.revision = 0
        self.needed = 0
        self._calm: tuple[tuple[str, ...], float] | None = None

    @property
    def are_serving(self) -> bool:
        """Whether there are any, and all of them know the workers that there are."""
        gates = self.records.values()
        return bool(gates) and all(
            gate.state == "ready" and gate.configured >= self.needed for gate in gates
        )

    def have_taken(self, revision: int) -> bool:
        """Whether every gateway that takes snapshots serves by this one or a later one."""
        return all(
            gate.configured >= revision
            for gate in self.records.values()
            if gate.state in ("starting", "ready")
        )

    def have_all_taken(self, revision: int) -> bool:
        """Whether every gateway that may pass requests on does: those too that drain, and take no snapshots any more."""
        return all(
            gate.configured >= revision for gate in self.records.values() if gate.state != "lost"
        )

    def reported(self, event: events.GatewayReported) -> None:
        """A gateway serves."""
        gate = self.records.get(event.report.node)
        if gate is not None and gate.state in ("starting", "ready"):
            gate.state, gate.report, gate.losses, gate.reason = "ready", event.report, 0, ""

    def configured(self, event: events.GatewayConfigured) -> None:
        """A gateway serves by a snapshot."""
        gate = self.records.get(event.node)
        if gate is not None:
            gate.configured = max(gate.configured, event.revision)

    def lost(self, event: events.GatewayLost, now_s: float) -> None:
        """A gateway is gone; it is started again, the later the more often that failed."""
        gate = self.records.get(event.node)
        if gate is None or gate.state == "lost":
            return
        self._calm = None
        if gate.state == "draining":
            del self.records[event.node]
            return
        gate.retry_at_s = now_s + (
            min(2.0 ** (gate.losses - 1), RESTART_DELAY_S_MAX) if gate.losses else 0.0
        )
        gate.state, gate.report, gate.reason, gate.configured = "lost", None, event.reason, -1
        gate.losses += 1

    def stopped(self, event: events.GatewayStopped) -> None:
        """A gateway has ended as it was told to."""
        gate = self.records.get(event.node)
        if gate is not None and gate.state == "draining":
            self._calm = None
            del self.records[event.node]

    def configure(self) -> Iterator[commands.Command]:
        """Have every gateway take the newest snapshot."""
        self.revision += 1
        return (
            commands.ConfigureGateway(gate.node)
            for gate in self.records.values()
            if gate.state in ("starting", "ready")
        )

    def reconcile(self, nodes: Collection[str], now_s: float) -> Iterator[commands.Command]:
        """What brings the gateways nearer to what should be. Costs nothing while neither has changed and none is due to start again."""
        asked = tuple(nodes)
        if self._calm is not None and self._calm[0] == asked and now_s < self._calm[1]:
            return
        self._calm = (asked, math.inf)
        yield from self._bring_about(asked, now_s)
        if self._calm is not None:
            retries_s = (gate.retry_at_s for gate in self.records.values() if gate.state == "lost")
            self._calm = (asked, min(retries_s, default=math.inf))

    def _bring_about(self, nodes: Collection[str], now_s: float) -> Iterator[commands.Command]:
        wanted = frozenset(nodes)
        for gate in list(self.records.values()):
            yield from self._follow(gate, now_s, is_wanted=gate.node in wanted)
        for node in nodes:
            if node not in self.records:
                self.records[node] = GatewayRecord(node)
                yield commands.StartGateway(node)

    def _follow(
        self, gate: GatewayRecord, now_s: float, *, is_wanted: bool
    ) -> Iterator[commands.Command]:
        if gate.state == "lost" and not is_wanted:
            del self.records[gate.node]
        elif gate.state in ("starting", "ready") and not is_wanted:
            gate.state = "draining"
            yield commands.StopGateway(gate.node)
        elif gate.state == "lost" and now_s >= gate.retry_at_s:
            gate.state = "starting"
            gate.restarts += 1
            yield commands.StartGateway(gate.node)
