"""Asks every process of the mesh for its metrics, and makes one page of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import httpx

from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import envoy_admin
from meshserve.gateway.sidecar import metrics_merge
from meshserve.protocol import paths

TIMEOUT_S = 2.0
GATEWAY = "gateway"
FAILURES = "meshserve_scrape_failures_total"


class MetricsFanout:
    """Counts, for as long as it lives, who did not answer."""

    def __init__(self, envoy: envoy_admin.Admin) -> None:
        self._envoy = envoy
        self._failures: Counter[str] = Counter()

    async def page(self, snap: snapshots.GatewaySnapshot) -> str:
        """The metrics of workers, replicas, the controller and this node's Envoy. Who does not answer in time is left out and counted."""
        endpoints = _endpoints(snap)
        texts = await asyncio.gather(
            self._envoy_text(),
            *(self._text(name, endpoint, snap.node) for name, endpoint in endpoints.items()),
        )
        envoys, *others = texts
        return metrics_merge.merged(
            {GATEWAY: f"{envoys}\n{self._own_page()}", **dict(zip(endpoints, others, strict=True))},
            _labels(snap),
        )

    async def _text(self, name: str, endpoint: model.Endpoint, node: str) -> str:
        try:
            return await _fetched(endpoint, node)
        except httpx.HTTPError:
            self._failures[name] += 1
            return ""

    async def _envoy_text(self) -> str:
        try:
            return await self._envoy.prometheus()
        except httpx.HTTPError:
            self._failures[GATEWAY] += 1
            return ""

    def _own_page(self) -> str:
        help_text = f"# HELP {FAILURES} Times that a process did not answer when asked for its metrics.\n# TYPE {FAILURES} counter\n"
        return help_text + "".join(
            f'{FAILURES}{{asked="{metrics_merge.escaped(name)}"}} {count}\n'
            for name, count in self._failures.items()
        )


def _endpoints(snap: snapshots.GatewaySnapshot) -> Mapping[str, model.Endpoint]:
    groups = [*snap.pools.values(), *(llm.members for llm in snap.llms)]
    members = {member.worker_id: member.endpoint for group in groups for member in group}
    return members if snap.controller is None else {**members, "controller": snap.controller}


def _labels(snap: snapshots.GatewaySnapshot) -> dict[str, dict[str, str]]:
    """Engines say of their series neither which replica they are nor by which name their model is known here."""
    return {
        member.worker_id: {"model": llm.name, "replica": member.worker_id}
        for llm in snap.llms
        for member in llm.members
    }


async def _fetched(endpoint: model.Endpoint, node: str) -> str:
    is_near = bool(endpoint.socket_path) and endpoint.node == node
    transport = httpx.AsyncHTTPTransport(
        uds=endpoint.socket_path if is_near else None, verify=False
    )
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_S) as http:
        return (
            (await http.get(f"http://{endpoint.host}:{endpoint.port}{paths.METRICS}"))
            .raise_for_status()
            .text
        )
