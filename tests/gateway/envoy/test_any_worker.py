from __future__ import annotations

from typing import Any

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import any_worker, gateway_paths

LAYOUT = gateway_paths.GatewayPaths("/run")


def test_a_pools_listener_leads_to_its_least_busy_worker_and_only_this_user_can_open_it() -> None:
    snap = snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {"small": (), "big": ()})
    listeners: Any = any_worker.listeners(snap, LAYOUT)
    pipes = [entry["address"]["pipe"] for entry in listeners]
    assert [pipe["path"] for pipe in pipes] == [
        LAYOUT.any_worker_socket("big"),
        LAYOUT.any_worker_socket("small"),
    ]
    assert {pipe["mode"] for pipe in pipes} == {0o600}
    proxies = [entry["filter_chains"][0]["filters"][0]["typed_config"] for entry in listeners]
    assert [proxy["cluster"] for proxy in proxies] == ["busy-big", "busy-small"]
