"""The whole configuration as text."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import envoy_config
from tests.gateway.conftest import member

SNAPSHOT = snapshots.GatewaySnapshot(
    listen="127.0.0.1:8080",
    node="n1",
    pools={"default": (member("/run", "default-0"), member("/run", "default-1")), "gpu": ()},
    routes={"huge": "gpu"},
    controller=model.Endpoint("n1", "127.0.0.1", 9, "/run/controller.sock"),
    keys=(snapshots.ApiKey("shop", "secret"),),
)


LLMS = (
    snapshots.LlmRoute("org/tiny 1", ("org/tiny 1", "tiny"), (member("/run", "tiny/0"),)),
    snapshots.LlmRoute("cold", ("cold", "lora"), is_held=True),
)
WITH_LLMS = replace(SNAPSHOT, llms=LLMS)


def changed(snap: snapshots.GatewaySnapshot, since: Any = SNAPSHOT) -> Any:
    before, after = envoy_config.files(since, "/run"), envoy_config.files(snap, "/run")
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_equal_snapshots_give_equal_text() -> None:
    assert (
        changed(replace(SNAPSHOT, routes=dict(SNAPSHOT.routes), pools=dict(SNAPSHOT.pools)))
        == set()
    )


def test_a_resource_comes_before_the_ones_that_name_it() -> None:
    *members, clusters, routes, listeners, bootstrap = envoy_config.files(SNAPSHOT, "/run")
    names = ["busy-default", "busy-gpu", "controller", "pool-default", "pool-gpu"]
    assert members == [f"eds-{name}.json" for name in names]
    assert (clusters, routes, listeners, bootstrap) == (
        "cds.json",
        "rds.json",
        "lds.json",
        "bootstrap.json",
    )


def test_routes_keys_and_limits_never_change_the_listener() -> None:
    not_ready = {**SNAPSHOT.pools, "default": (member("/run", "default-0", is_ready=False),)}
    assert changed(replace(SNAPSHOT, pools=not_ready)) == {
        "eds-pool-default.json",
        "eds-busy-default.json",
    }
    assert changed(replace(SNAPSHOT, controller=None)) == {"eds-controller.json"}
    assert changed(replace(SNAPSHOT, pools={**SNAPSHOT.pools, "new": ()})) == {
        "eds-pool-new.json",
        "eds-busy-new.json",
        "cds.json",
        # For the listener that leads to any worker of the pool; the port's does not change.
        "lds.json",
    }
    hot = (snapshots.HotRoute("default", ("m",), ("default-0",)),)
    assert changed(replace(SNAPSHOT, hot=hot)) == {"eds-busy-default.json", "rds.json"}
    changes: list[dict[str, Any]] = [
        {"routes": {}},
        {"keys": ()},
        {"request_bytes_max": 1},
        {"default_pool": "gpu"},
    ]
    for change in changes:
        assert changed(replace(SNAPSHOT, **change)) == {"rds.json"}
    assert changed(replace(SNAPSHOT, listen="127.0.0.1:8081")) == {"lds.json"}


def test_the_same_llms_give_the_same_text_in_any_order() -> None:
    assert (
        changed(replace(WITH_LLMS, llms=tuple(replace(llm) for llm in LLMS)), since=WITH_LLMS)
        == set()
    )
    assert changed(replace(WITH_LLMS, llms=LLMS[::-1]), since=WITH_LLMS) == set()
    assert changed(replace(WITH_LLMS, llms=()), since=SNAPSHOT) == set()


def test_an_llm_never_changes_the_listener() -> None:
    members = {
        f"eds-{kind}-{name}.json"
        for kind in ("llm", "sticky")
        for name in ("cold", "org%2Ftiny%201")
    }
    assert changed(WITH_LLMS) == {"cds.json", "rds.json", *members}
    first, cold = LLMS
    more = replace(first, members=(*first.members, member("/run", "tiny/1")))
    assert changed(replace(WITH_LLMS, llms=(more, cold)), since=WITH_LLMS) == {
        file for file in members if "tiny" in file
    }
    for change in ({"is_held": False}, {"names": ("cold",)}, {"wait_s_max": 1.0}):
        assert changed(
            replace(WITH_LLMS, llms=(first, replace(cold, **change))), since=WITH_LLMS
        ) == {"rds.json"}


def test_a_held_route_has_the_wait_limit_as_metadata() -> None:
    texts = [
        envoy_config.files(
            replace(SNAPSHOT, llms=(replace(LLMS[1], is_held=held, wait_s_max=2.5),)), "/run"
        )
        for held in (True, False)
    ]
    assert [text["rds.json"].count('"wait_ms": 7500') for text in texts] == [4, 0]


def test_a_version_is_its_contents() -> None:
    snaps = (SNAPSHOT, replace(SNAPSHOT, routes={}), SNAPSHOT)
    first, second, third = (
        envoy_config.version(envoy_config.files(snap, "/run")["rds.json"]) for snap in snaps
    )
    assert first == third != second


def test_keys_are_only_in_the_routes() -> None:
    assert {
        name for name, text in envoy_config.files(SNAPSHOT, "/run").items() if "secret" in text
    } == {"rds.json"}


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)


@given(st.dictionaries(text, st.sampled_from(["default", "gpu"]), max_size=5))
def test_any_name_makes_valid_json(routes: dict[str, str]) -> None:
    files = envoy_config.files(replace(SNAPSHOT, routes=routes), "/run")
    assert all(json.loads(text) for text in files.values())
