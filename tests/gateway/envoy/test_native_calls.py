"""What changes in Envoy's configuration with the module in C, and only then."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import clusters, envoy_config, lua_filter, native_calls, routes

MODULE = "/state/native/meshframes-1.so"
SNAPSHOT = snapshots.GatewaySnapshot(
    "127.0.0.1:1",
    "n1",
    {"default": ()},
    controller=model.Endpoint("n1", "127.0.0.1", 1, "/run/controller.sock"),
    is_native=True,
)


def written(files: dict[str, str]) -> dict[str, Any]:
    resources = json.loads(files[envoy_config.CLUSTERS])["resources"]
    return {cluster["name"]: cluster for cluster in resources}


def test_requests_to_workers_alone_are_frames() -> None:
    shown = written(envoy_config.files(SNAPSHOT, "/run", module=MODULE))
    assert {name for name in shown if "upstream_config" in shown[name]} == {
        "pool-default",
        "busy-default",
    }
    options = shown["busy-default"]["typed_extension_protocol_options"]
    assert options.keys() == {clusters.HTTP_OPTIONS, native_calls.TCP_OPTIONS}
    # Health checks stay HTTP.
    assert shown["pool-default"]["health_checks"][0]["http_health_check"]


@pytest.mark.parametrize(
    ("snap", "module"),
    [(SNAPSHOT, ""), (dataclasses.replace(SNAPSHOT, is_native=False), MODULE)],
    ids=["no module", "not wanted"],
)
def test_otherwise_nothing_is_different(snap: snapshots.GatewaySnapshot, module: str) -> None:
    plain = envoy_config.files(dataclasses.replace(SNAPSHOT, is_native=False), "/run")
    assert envoy_config.files(snap, "/run", module=module) == plain
    assert "dynamic_modules" not in str(plain)


def test_a_call_for_a_worker_has_the_filter_instead_of_the_script_and_the_bridge() -> None:
    text = json.dumps(routes.table(dataclasses.replace(SNAPSHOT, module=MODULE)))
    before = json.dumps(routes.table(SNAPSHOT))
    assert text.count(f'"{native_calls.FILTER}": ') == 4
    assert text.count(f'"value": "{SNAPSHOT.request_bytes_max}"') == 4
    for name in (routes.BRIDGE, routes.CALL_ANSWERS, lua_filter.FILTER):
        assert before.count(f'"{name}"') - text.count(f'"{name}"') == 4
