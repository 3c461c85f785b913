"""A mesh on three machines, each with an address of its own: see `nodes.py`."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import support
from tests.cluster import nodes
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(500)]

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent.parent
HEALTH = "/grpc.health.v1.Health/Check"
OPEN = {"monitor"}
"""Ray's autoscaler, which tells its metrics to all: docs/security.md says so."""
REFUSALS = {"UNAUTHENTICATED", "UNIMPLEMENTED", "UNAVAILABLE"}
MODELS = 200
PER_S = 300
UP_S = 200.0
LOSS_S = 120.0
CUT_S = 10.0


@pytest.fixture(scope="module")
def network(short_folder: Any) -> Iterator[nodes.Network]:
    folder = Path(tempfile.mkdtemp(prefix="n", dir=short_folder))
    with nodes.network(folder) as started:
        try:
            started.add_all(3)
        except AssertionError as late:
            # Without a mesh of ours on it: three Rays at once may be too much for a busy machine.
            pytest.skip(f"the three machines are not there: {late}")
        begin_mesh(started)
        yield started


def begin_mesh(network: nodes.Network) -> None:
    config = {
        "gateway": {"listen": f"0.0.0.0:{nodes.GATEWAY_PORT}"},
        "pools": {"default": {"workers": 3, "memory": "1GiB"}},
        "models": traffic.models(network.folder / "models", MODELS),
    }
    path = network.folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    # From a machine that is not the head.
    words = ("up", path, "--address", network.ray_address, "--detach")
    network.nodes[1].meshserve(*words, timeout=UP_S)


def status(node: nodes.Node) -> Any:
    return json.loads(node.meshserve("status", "--json", "--endpoint", f"http://{node.listen}"))


@contextmanager
def load(network: nodes.Network, fault: str, *through: nodes.Node) -> Iterator[dict[str, Any]]:
    """Traffic through these gateways; what came of it is there when the block has ended.

    It is logged as a line of the table in docs/reliability.md too.
    """
    outcome: dict[str, Any] = {}
    before = loads(network.nodes[0])
    with network.begin_load(MODELS, PER_S, *(node.listen for node in through)) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "flowing\n"
        yield outcome
        said, _ = client.communicate("", timeout=support.WAIT_S)
    outcome.update(json.loads(said))
    logger.info(
        "| %s | %d | %d | %.1f s | %d |",
        fault,
        sum(flow["answered"] for flow in outcome.values()),
        sum(len(flow["faults"]) for flow in outcome.values()),
        max(flow["slowest_s"] for flow in outcome.values()),
        loads(network.nodes[0]) - before,
    )


def loads(node: nodes.Node) -> int:
    """How many models the present processes of workers have loaded."""
    return sum(worker["loads"] for worker in status(node)["pools"][0]["workers"])


def assert_all_right(outcome: dict[str, Any], *through: nodes.Node) -> None:
    for node in through:
        flow = outcome[node.listen]
        assert flow["faults"] == []
        assert flow["answered"] > 0


def answered(node: nodes.Node) -> int:
    return sum(w["requests"] for pool in status(node)["pools"] for w in pool["workers"])


def test_any_gateway_reaches_any_worker(network: nodes.Network) -> None:
    seen = status(network.nodes[0])
    ids = {gateway["node"] for gateway in seen["gateways"]}
    assert len(ids) == len(network.nodes)
    # One on each node, unless a start has failed there: it is tried elsewhere.
    homes = {worker["node"] for worker in seen["pools"][0]["workers"]}
    assert homes <= ids
    assert len(homes) > 1
    with load(network, "none", *network.nodes) as outcome:
        support.wait_until(lambda: answered(network.nodes[0]) > 10 * MODELS, what="traffic")
    assert_all_right(outcome, *network.nodes)
    workers = status(network.nodes[0])["pools"][0]["workers"]
    assert all(worker["requests"] > 0 for worker in workers)


def test_another_user_of_a_machine_is_refused_at_every_socket(network: nodes.Network) -> None:
    """Refused without the mesh's secret and Ray's token; the gateway's port has no keys here."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        words = (sys.executable, "-m", "tests.cluster.doors")
        met = list(
            pool.map(
                lambda node: json.loads(
                    node.run(*words, node.address, env=network.variables, cwd=ROOT)
                ),
                network.nodes,
            )
        )
    open_ports = []
    for node, answers in zip(network.nodes, met, strict=True):
        owners = answers["owners"]
        assert owners.pop(node.listen) == "envoy"
        logger.info("%s: %s", node.address, sorted(set(owners.values())))
        for port, owner in owners.items():
            codes, pages = answers["calls"][port], answers["pages"][port]
            is_known = "UNAUTHENTICATED" in codes.values() or "401" in pages.values()
            codes.pop(HEALTH)
            is_refused = set(codes.values()) <= REFUSALS
            has_no_page = set(pages.values()) <= {"401", "no HTTP/1.1"}
            if not (is_known and is_refused and has_no_page) and owner not in OPEN:
                met_there = sorted({*codes.items()}), sorted({*pages.values()})
                open_ports.append((owner, port, *met_there))
        assert set(answers["paths"].values()) == {"PermissionError"}
    assert open_ports == []
    owners_anywhere = {owner for answers in met for owner in answers["owners"].values()}
    assert {"ray::WorkerActor", "ray::ControllerActor"} <= owners_anywhere


def is_whole(network: nodes.Network, count: int) -> bool:
    seen = status(network.nodes[0])
    parts = [*seen["pools"][0]["workers"], *seen["gateways"]]
    return len(seen["gateways"]) == count and all(part["state"] == "ready" for part in parts)


def test_a_cut_cable_costs_no_request_of_other_gateways(network: nodes.Network) -> None:
    *others, cut = network.nodes
    with load(network, "a cable cut for 10 s", *others) as outcome:
        before = answered(network.nodes[0])
        support.wait_until(lambda: answered(network.nodes[0]) > before, what="traffic")
        cut.cut()
        # The fault itself takes this time; nothing is waited for.
        time.sleep(CUT_S)
        cut.mend()
        support.wait_until(lambda: is_whole(network, 3), LOSS_S, "all are ready again")
    assert_all_right(outcome, *others)


def state_of(network: nodes.Network, node: nodes.Node) -> Any:
    rows = status(network.nodes[0])["nodes"]
    return next(row["state"] for row in rows if row["address"] == node.address)


def test_a_drained_node_costs_no_request(network: nodes.Network) -> None:
    *others, drained = network.nodes
    asked = ("--endpoint", f"http://{others[0].listen}")
    with load(network, "a node drained, and used again", *others) as outcome:
        before = answered(network.nodes[0])
        support.wait_until(lambda: answered(network.nodes[0]) > before, what="traffic")
        # As a pod does at its end: by its Ray, and without a key.
        said = drained.meshserve("drain", "--self", timeout=LOSS_S)
        logger.info("%s", said)
        assert state_of(network, drained) == "drained"
        support.wait_until(lambda: is_whole(network, 2), LOSS_S, "its worker is elsewhere")
        node_id = next(
            row["id"] for row in status(others[0])["nodes"] if row["address"] == drained.address
        )
        workers = status(others[0])["pools"][0]["workers"]
        assert node_id not in {worker["node"] for worker in workers}
        others[0].meshserve("drain", "--undo", "--node", drained.address, *asked)
        support.wait_until(lambda: is_whole(network, 3), LOSS_S, "its gateway is back")
    assert_all_right(outcome, *others)


def test_a_dead_node_costs_no_request_of_other_gateways(network: nodes.Network) -> None:
    *others, dead = network.nodes
    with load(network, "a node killed", *others) as outcome:
        before = answered(network.nodes[0])
        support.wait_until(lambda: answered(network.nodes[0]) > before, what="traffic")
        dead.kill()
        support.wait_until(lambda: is_whole(network, 2), LOSS_S, "its worker is back elsewhere")
    assert_all_right(outcome, *others)
