"""Workers and gateways of several machines, by machine."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from meshserve.cli import node_rows, tables, top
from tests.cli import fake_mesh

FIRST, SECOND, THIRD = "a" * 56, "b" * 56, "c" * 56
MOVING = {"moved": 12, "to_move": 100, "failed": 0, "without_room": 0, "remaining": ["its gateway"]}


def answer(*workers: Any) -> Any:
    """The status of the head, of a node that drains, and of one without a gateway."""
    gateway = {"envoy_pid": 10, "state": "ready", "listen": "0.0.0.0:8080", "restarts": 0}
    return {
        "version": "0.1.0",
        "state": "ready",
        "endpoint": "",
        "pools": [{"name": "default", "device": "cpu", "workers": list(workers)}],
        "gateways": [{"node": node, "pid": 9, **gateway} for node in (SECOND, FIRST)],
        "models": {"registered": 5, "resident": 2, "loading": 1, "failed": 1},
        "controller": {"pid": 77, "restarts": 0},
        "llms": [],
        "nodes": [
            fake_mesh.node(SECOND, name="box", address="10.0.0.2", state="moving", drain=MOVING),
            fake_mesh.node(FIRST, name="10.0.0.9", address="10.0.0.9", is_head=True),
            fake_mesh.node(THIRD, name="", address=""),
        ],
    }


def drawn(view: Any, width: int = 140) -> str:
    console = Console(width=width, record=True, file=None, force_terminal=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


WORKERS = (
    fake_mesh.worker("default-0", node=SECOND),
    fake_mesh.worker("default-1", node=FIRST),
    fake_mesh.worker("default-2", node=SECOND),
    fake_mesh.worker("default-3", node="", state="starting"),
)


def test_workers_are_listed_by_node_the_heads_first_and_those_on_none_last() -> None:
    rows = list(tables.workers(answer(*WORKERS)))
    assert [(row["place"], row["id"]) for row in rows] == [
        ("10.0.0.9", "default-1"),
        ("box", "default-0"),
        ("", "default-2"),
        ("–", "default-3"),
    ]


def test_a_name_that_two_nodes_have_is_not_used() -> None:
    shown = answer()
    shown["nodes"][1]["name"] = "box"
    called = node_rows.names(shown)
    assert called == {id_: id_[:12] for id_ in (FIRST, SECOND, THIRD)}
    assert next(iter(called)) == FIRST


def test_status_shows_each_node_with_its_drain_and_gateway() -> None:
    lines = drawn(tables.status(answer(*WORKERS), "", 140)).splitlines()
    (head,) = (line for line in lines if "(head)" in line)
    assert head.split()[:4] == ["10.0.0.9", "(head)", "aaaaaaaaaaaa", "ready"]
    (draining,) = (line for line in lines if "bbbbbbbbbbbb" in line)
    assert "12 moved, 100 to go, 1 left" in draining
    (bare,) = (line for line in lines if "cccccccccccc" in line)
    assert "–" in bare


def test_top_is_grouped_too() -> None:
    sample = top.Sample(1.0, answer(*WORKERS), ())
    lines = drawn(top.view(sample, sample._replace(at_s=2.0), 140, 5)).splitlines()
    assert next(line for line in lines if "default-1" in line).startswith("10.0.0.9")
    assert next(line for line in lines if "default-2" in line).startswith("   ")


def test_a_mesh_of_one_node_looks_as_ever() -> None:
    shown = answer(fake_mesh.worker("default-0", node=FIRST))
    shown["nodes"] = shown["nodes"][1:2]
    assert not node_rows.has_several(shown)
    assert "place" not in next(tables.workers(shown))
    assert "gateway" in drawn(tables.status(shown, "", 140))
