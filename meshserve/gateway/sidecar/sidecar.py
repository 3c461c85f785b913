"""The sidecar: a gRPC server and an HTTP server on Unix sockets, which follow the same snapshot."""

from __future__ import annotations

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_admin, gateway_paths
from meshserve.gateway.sidecar import metrics_fanout, sidecar_grpc, sidecar_http
from meshserve.protocol import asgi_server, sockets


class Sidecar:
    """Both servers of one node's gateway."""

    def __init__(
        self,
        layout: gateway_paths.GatewayPaths,
        envoy: envoy_admin.EnvoyAdmin,
        secret: str = "",
    ) -> None:
        self._layout = layout
        self._is_draining = False
        self._fanout = metrics_fanout.MetricsFanout(envoy, secret)
        self._snapshot: snapshots.GatewaySnapshot | None = None
        self._grpc: sidecar_grpc.SidecarGrpc | None = None
        self._http: asgi_server.RunningServer | None = None

    async def start(self, snap: snapshots.GatewaySnapshot) -> None:
        """Listen on both sockets. Raises OSError."""
        self._snapshot, self._is_draining = snap, False
        app = sidecar_http.SidecarHttp(self.is_ready, self.metrics, self.request_bytes_max)
        socket = sockets.unix_socket(self._layout.http_socket)
        self._http = await asgi_server.serve(app, [socket])
        await self._start_grpc(snap)

    async def follow(self, snap: snapshots.GatewaySnapshot) -> None:
        """Answer by this snapshot."""
        before, self._snapshot = self._snapshot, snap
        # A gRPC server's limit and a channel's address are fixed when they are made.
        if before is not None and (before.listen, before.request_bytes_max) != (
            snap.listen,
            snap.request_bytes_max,
        ):
            await self._stop_grpc()
            await self._start_grpc(snap)
        await self._refresh()

    async def drain(self) -> None:
        """Report that this node is not ready any more; answer all the same."""
        self._is_draining = True
        await self._refresh()

    async def stop(self) -> None:
        """Stop both servers; calls under way have a second to end."""
        await self._stop_grpc()
        if self._http is not None:
            await self._http.stop()
            self._http = None

    def is_ready(self) -> bool:
        """Return whether new requests can be answered."""
        snap = self._snapshot
        if snap is None or self._is_draining or snap.is_leaving:
            return False
        return can_answer(snap)

    def request_bytes_max(self) -> int:
        """Return the limit of a request's message in bytes."""
        return 0 if self._snapshot is None else self._snapshot.request_bytes_max

    async def metrics(self) -> str:
        """Return the metrics of the whole mesh in Prometheus' text format."""
        return "" if self._snapshot is None else await self._fanout.page(self._snapshot)

    async def _start_grpc(self, snap: snapshots.GatewaySnapshot) -> None:
        self._grpc = await sidecar_grpc.listen(self._layout.grpc_socket, snap, self.is_ready)

    async def _stop_grpc(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
            self._grpc = None

    async def _refresh(self) -> None:
        if self._grpc is not None:
            await self._grpc.refresh()


def can_answer(snap: snapshots.GatewaySnapshot) -> bool:
    """Return whether the mesh has a ready worker, or needs none and holds requests.

    Those for an LLM, and for a pool that sleeps, wait until it is ready.
    """
    # Workers that were configured away still end, and those that start are no members yet.
    members = [member for pool in snap.pools.values() for member in pool]
    if snap.workers_wanted or (members and not snap.held):
        return any(member.ready for member in members)
    return bool(snap.llms or snap.held)
