"""Collect one page of metrics for the whole mesh, from all processes at the same time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import httpx

from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import envoy_admin
from meshserve.gateway.sidecar import metrics_merge
from meshserve.protocol import mesh_secret, paths

TIMEOUT_S = 2.0
GATEWAY = "gateway"
FAILURES = "meshserve_scrape_failures_total"
FAILURES_HELP = (
    f"# HELP {FAILURES} Times that a process did not answer when asked for its metrics.\n"
    f"# TYPE {FAILURES} counter\n"
)


class MetricsFanout:
    """Collects the pages of all processes, and counts how often each process did not answer."""

    def __init__(self, envoy: envoy_admin.EnvoyAdmin, secret: str = "") -> None:
        """`secret` is sent to all processes but Envoy, if they ask for one."""
        self._envoy = envoy
        self._headers = mesh_secret.to_send(secret)
        self._failures: Counter[str] = Counter()

    async def page(self, snap: snapshots.GatewaySnapshot) -> str:
        """Return the metrics of workers, LLM replicas, the controller and this node's Envoy.

        A process that does not answer within 2 s is left out and counted.
        """
        endpoints = _endpoints(snap)
        # At the same time: one process that hangs must not delay the page by more than its own
        # timeout.
        envoys, *others = await asyncio.gather(
            self._envoy_page(),
            *(self._page(name, endpoint, snap.node) for name, endpoint in endpoints.items()),
        )
        pages = {GATEWAY: f"{envoys}\n{self._own_page()}"}
        pages |= dict(zip(endpoints, others, strict=True))
        return metrics_merge.merge(pages, _replica_labels(snap))

    async def _page(self, name: str, endpoint: model.Endpoint, node: str) -> str:
        try:
            return await _fetch(endpoint, node, self._headers)
        except httpx.HTTPError:
            self._failures[name] += 1
            return ""

    async def _envoy_page(self) -> str:
        try:
            return await self._envoy.prometheus()
        except httpx.HTTPError:
            self._failures[GATEWAY] += 1
            return ""

    def _own_page(self) -> str:
        return FAILURES_HELP + "".join(
            f'{FAILURES}{{asked="{metrics_merge.escape(name)}"}} {count}\n'
            for name, count in self._failures.items()
        )


def _endpoints(snap: snapshots.GatewaySnapshot) -> Mapping[str, model.Endpoint]:
    groups = [*snap.pools.values(), *(llm.members for llm in snap.llms)]
    endpoints = {member.worker_id: member.endpoint for group in groups for member in group}
    return endpoints if snap.controller is None else {**endpoints, "controller": snap.controller}


def _replica_labels(snap: snapshots.GatewaySnapshot) -> dict[str, dict[str, str]]:
    """Return labels to add to each replica's series, because engines don't know these names."""
    return {
        member.worker_id: {"model": llm.name, "replica": member.worker_id}
        for llm in snap.llms
        for member in llm.members
    }


async def _fetch(endpoint: model.Endpoint, node: str, headers: Mapping[str, str]) -> str:
    is_on_node = bool(endpoint.socket_path) and endpoint.node == node
    socket_path = endpoint.socket_path if is_on_node else None
    host = "localhost" if is_on_node else f"{endpoint.host}:{endpoint.port}"
    # The connection has no TLS. By default httpx would load certificates, which takes longer than
    # the request.
    transport = httpx.AsyncHTTPTransport(uds=socket_path, verify=False)
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S) as http:
        answer = await http.get(f"http://{host}{paths.METRICS}", headers=headers)
        return answer.raise_for_status().text
