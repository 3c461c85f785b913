"""The node's two small servers as one: what Envoy can't answer by itself and no worker should."""

from __future__ import annotations

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_admin, gateway_paths
from meshserve.gateway.sidecar import metrics_fanout, server_metadata, sidecar_grpc, sidecar_http
from meshserve.protocol import asgi_server, sockets


class Sidecar:
    """The grpc.aio server and the HTTP app, each on its Unix socket, following the same snapshot."""

    def __init__(self, at: gateway_paths.GatewayPaths, envoy: envoy_admin.Admin) -> None:
        self._at = at
        self._is_draining = False
        self._scraper = metrics_fanout.MetricsFanout(envoy)
        self._snapshot: snapshots.GatewaySnapshot | None = None
        self._grpc: sidecar_grpc.SidecarGrpc | None = None
        self._http: asgi_server.RunningServer | None = None

    async def start(self, snap: snapshots.GatewaySnapshot) -> None:
        """Listen on both sockets. Raises OSError."""
        self._snapshot, self._is_draining = snap, False
        app = sidecar_http.SidecarHttp(self.is_ready, self.metrics, self.request_bytes_max)
        self._http = await asgi_server.serve(app, [sockets.unix_socket(self._at.http_socket)])
        await self._start_grpc(snap)

    async def follow(self, snap: snapshots.GatewaySnapshot) -> None:
        """Answer by this snapshot. Where the server's own limits or the gateway's address changed, it is started anew."""
        before, self._snapshot = self._snapshot, snap
        if before is not None and (before.listen, before.request_bytes_max) != (
            snap.listen,
            snap.request_bytes_max,
        ):
            await self._stop_grpc()
            await self._start_grpc(snap)
        await self._refresh()

    async def drain(self) -> None:
        """Say that this node is not ready any more; answer all the same."""
        self._is_draining = True
        await self._refresh()

    async def stop(self) -> None:
        """Stop both; calls under way have a second."""
        await self._stop_grpc()
        if self._http is not None:
            await self._http.stop()
            self._http = None

    def is_ready(self) -> bool:
        """Whether new requests can be answered."""
        return (
            self._snapshot is not None
            and not self._is_draining
            and server_metadata.is_ready(self._snapshot)
        )

    def request_bytes_max(self) -> int:
        """The limit of a request's message."""
        return 0 if self._snapshot is None else self._snapshot.request_bytes_max

    async def metrics(self) -> str:
        """Everybody's metrics."""
        return "" if self._snapshot is None else await self._scraper.page(self._snapshot)

    async def _start_grpc(self, snap: snapshots.GatewaySnapshot) -> None:
        self._grpc = await sidecar_grpc.listen(self._at.grpc_socket, snap, self.is_ready)

    async def _stop_grpc(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
            self._grpc = None

    async def _refresh(self) -> None:
        if self._grpc is not None:
            await self._grpc.refresh()
