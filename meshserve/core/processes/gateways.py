"""The gateways: one on each node, each serving by a numbered snapshot."""

from __future__ import annotations

from dataclasses import dataclass

from meshserve.core import backoff
from meshserve.core.processes import reconcile
from meshserve.core.processes.reconcile import ProcessMove, ProcessState
from meshserve.core.values import commands, gateway_events, reports

BACKOFF = backoff.BackoffPolicy(base_s=1.0, cap_s=10.0, is_first_immediate=True)
# Below 0, which is the revision before anything was to be configured.
NO_SNAPSHOT = -1


@dataclass(slots=True)
class GatewayRecord(reconcile.ProcessRecord[str]):
    """One node's gateway. `configured` is the revision of the snapshot that it serves by."""

    report: reports.GatewayReport | None = None
    configured: int = NO_SNAPSHOT

    @property
    def node(self) -> str:
        """The node, by which gateways are known."""
        return self.id


class Gateways(reconcile.Reconciler[GatewayRecord, str, str]):
    """All gateways by node.

    `revision` counts the snapshots that they were to take; `needed` is the last one without which
    some of the workers get no requests.
    """

    def __init__(self, out: commands.Outbox) -> None:
        super().__init__(out)
        self.revision = 0
        self.needed = 0

    def _settings_by_id(self, wanted: tuple[str, ...]) -> dict[str, str]:
        return {node: node for node in wanted}

    def _new_record(self, id_: str, settings: str) -> GatewayRecord:
        return GatewayRecord(id_, settings, backoff.Backoff(BACKOFF))

    def _order_start(self, record: GatewayRecord) -> None:
        self._out.append(commands.StartGateway(record.node))

    def _order_stop(self, record: GatewayRecord) -> None:
        self._out.append(commands.StopGateway(record.node))

    @property
    def are_serving(self) -> bool:
        """Whether all gateways, and at least one, know every worker that can take requests."""
        gateways = self.records.values()
        return bool(gateways) and all(
            gateway.state is ProcessState.READY and gateway.configured >= self.needed
            for gateway in gateways
        )

    def have_taken(self, revision: int) -> bool:
        """Return whether every gateway that takes snapshots serves by `revision` or later."""
        return all(
            gateway.configured >= revision
            for gateway in self.records.values()
            if gateway.state in reconcile.RUNNING
        )

    def have_all_taken(self, revision: int) -> bool:
        """Return whether every gateway that may forward requests serves by `revision` or later.

        A draining gateway takes no snapshots any more, but still forwards requests.
        """
        return all(
            gateway.configured >= revision
            for gateway in self.records.values()
            if gateway.state is not ProcessState.LOST
        )

    def reported(self, event: gateway_events.GatewayReported) -> None:
        """Mark a gateway ready, and keep its report."""
        gateway = self.records.get(event.report.node)
        # The report may have been under way when the gateway was lost, or told to stop.
        if gateway is None or gateway.state not in reconcile.RUNNING:
            return
        gateway.report, gateway.reason = event.report, ""
        # A report is the proof that it serves, so earlier failures count no longer.
        gateway.backoff.reset()
        if gateway.state is ProcessState.STARTING:
            self._move(gateway, ProcessMove.SERVING)
            self._out.append(commands.Watch("gateway", gateway.node))

    def configured(self, event: gateway_events.GatewayConfigured) -> None:
        """Note the snapshot that a gateway serves by."""
        gateway = self.records.get(event.node)
        if gateway is not None:
            # Answers may come out of order: a start and a configuration overlap.
            gateway.configured = max(gateway.configured, event.revision)

    def lost(self, event: gateway_events.GatewayLost, now_s: float) -> None:
        """Mark a gateway lost; reconcile starts it again after its back-off."""
        gateway = self.records.get(event.node)
        # Two tasks watch each process, and both may tell of its end.
        if gateway is not None and gateway.state is not ProcessState.LOST:
            gateway.report, gateway.configured = None, NO_SNAPSHOT
            self._out.append(commands.Unwatch("gateway", gateway.node, gateway.loss(event.reason)))
            self._lose(gateway, event.reason, now_s)

    def stopped(self, event: gateway_events.GatewayStopped) -> None:
        """Forget a gateway that has drained and ended."""
        gateway = self.records.get(event.node)
        if gateway is not None and gateway.state is ProcessState.DRAINING:
            self._out.append(commands.Unwatch("gateway", gateway.node))
            self._remove(gateway, ProcessMove.STOPPED)

    def configure(self) -> None:
        """Order every gateway to take the newest snapshot."""
        self.revision += 1
        self._out.extend(
            commands.ConfigureGateway(gateway.node)
            for gateway in self.records.values()
            if gateway.state in reconcile.RUNNING
        )
