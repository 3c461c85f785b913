from __future__ import annotations

import dataclasses
import pickle

from meshserve.core.values import model, snapshots

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 7000, "/run/w.sock")
SNAP = snapshots.GatewaySnapshot(
    "127.0.0.1:8080", "n1", {"default": (snapshots.RingMember("default-0", ENDPOINT),)}
)


def test_without_keys_routes_and_controller_it_is_complete() -> None:
    assert (SNAP.keys, SNAP.routes, SNAP.controller, SNAP.default_pool) == ((), {}, None, "default")
    assert snapshots.RingMember("default-0", ENDPOINT).ready
    assert not snapshots.ApiKey("client", "secret").admin


def test_a_snapshot_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(SNAP))
    assert again == SNAP
    assert dataclasses.replace(again, node="n2") != SNAP
