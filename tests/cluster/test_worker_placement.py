from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from meshserve import errors
from meshserve.cluster import worker_placement
from meshserve.core.values import desired, events, model

SPREAD = desired.WorkerSettings(pool="p")
PACKED = dataclasses.replace(SPREAD, is_packed=True)
LABELLED = dataclasses.replace(SPREAD, labels=(("zone", "b"),))
ON_GPU = dataclasses.replace(SPREAD, device="cuda")


def node(name: str, gpus: int = 0, **labels: str) -> dict[str, Any]:
    return {"NodeID": name, "Labels": labels, "Resources": {"CPU": 1.0, "GPU": float(gpus)}}


NODES = [node("n3"), node("n1"), node("n2")]


def placed(nodes: list[dict[str, Any]], settings: desired.WorkerSettings, count: int) -> list[str]:
    places: list[worker_placement.WorkerPlace] = []
    for _ in range(count):
        chosen = worker_placement.choose_node(nodes, settings, places)
        places.append(worker_placement.WorkerPlace(settings.pool, chosen))
    return [place.node for place in places]


def test_workers_of_a_pool_are_spread_whatever_others_there_are() -> None:
    assert placed(NODES, SPREAD, 7) == ["n1", "n2", "n3", "n1", "n2", "n3", "n1"]
    others = [worker_placement.WorkerPlace("other", "n1")]
    assert worker_placement.choose_node(NODES, SPREAD, others) == "n2"


def test_a_packed_pool_stays_together() -> None:
    assert placed(NODES, PACKED, 3) == ["n1", "n1", "n1"]


def test_only_nodes_with_all_labels_are_used() -> None:
    nodes = [node("n1"), node("n2", zone="b", disk="hdd"), node("n3", zone="a")]
    assert placed(nodes, LABELLED, 2) == ["n2", "n2"]
    both = dataclasses.replace(SPREAD, labels=(("disk", "ssd"), ("zone", "b")))
    message = "^none of the 3 nodes has the label disk=ssd and the label zone=b, which pools.p.pla"
    with pytest.raises(errors.Unavailable, match=message):
        worker_placement.choose_node(nodes, both, [])


def test_a_node_without_labels_is_a_node() -> None:
    assert worker_placement.choose_node([node("n1") | {"Labels": None}], SPREAD, []) == "n1"


def test_each_gpu_has_one_worker() -> None:
    nodes = [node("n1"), node("n2", gpus=2), node("n3", gpus=1)]
    assert placed(nodes, ON_GPU, 3) == ["n2", "n3", "n2"]
    with pytest.raises(errors.Unavailable, match="a free GPU"):
        placed(nodes, ON_GPU, 4)


def test_a_node_where_it_failed_is_avoided_while_there_is_another() -> None:
    assert worker_placement.choose_node(NODES, SPREAD, [], "n1") == "n2"
    assert worker_placement.choose_node([node("n1")], SPREAD, [], "n1") == "n1"


def test_a_cluster_without_nodes_is_unavailable() -> None:
    with pytest.raises(errors.Unavailable, match="no living node"):
        worker_placement.choose_node([], SPREAD, [])


def test_workers_of_an_earlier_controller_count() -> None:
    placements = worker_placement.WorkerPlacements()
    endpoint = model.Endpoint("n1", "h", 1)
    placements.adopt([events.LivingWorker("p-0", SPREAD, endpoint, 1, is_ready=True)])
    assert list(placements._places.values()) == [worker_placement.WorkerPlace("p", "n1")]
    placements.note_failure("p-0")
    placements.forget("p-0")
    assert (placements._places, placements._failed) == ({}, {})
