"""`meshserve drain`: what it asks for, prints and returns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.cli import drain
from meshserve.core.values import nodes as node_values
from meshserve.launch import mesh_file
from tests.cli import conftest, fake_mesh

OTHER = "b" * 56


def counts(moved: int, to_move: int, *remaining: str, **more: int) -> dict[str, Any]:
    numbers = {"moved": moved, "to_move": to_move, "failed": 0, "without_room": 0, **more}
    return {**numbers, "remaining": list(remaining)}


@pytest.fixture
def nodes(fake: fake_mesh.FakeMesh, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The nodes of the fake mesh, which the command asks for without a pause."""
    monkeypatch.setattr(drain, "POLL_S", 0.0)
    rows = [fake_mesh.node("a" * 56), fake_mesh.node(OTHER, name="box", address="10.0.0.9")]
    fake.state["nodes"] = rows
    return rows


def play(fake: fake_mesh.FakeMesh, row: Any, *scenes: tuple[str, Any]) -> None:
    """Have each request for the status find the next scene, and then the last one."""
    following: Iterator[tuple[str, Any]] = itertools.chain(scenes, itertools.repeat(scenes[-1]))
    answer = fake.status

    def status() -> dict[str, Any]:
        row["state"], row["drain"] = next(following)
        return answer()

    fake.status = status  # type: ignore[method-assign]


@pytest.mark.parametrize("name", ["box", "10.0.0.9", OTHER, "bbbb"])
def test_it_waits_and_tells_how_it_goes_on(
    run: conftest.Run, fake: fake_mesh.FakeMesh, nodes: list[Any], name: str
) -> None:
    play(
        fake,
        nodes[1],
        ("moving", counts(1, 7, "worker default-1", "its gateway")),
        ("moving", counts(8, 0, "worker default-1", "its gateway")),
        ("leaving", counts(8, 0, "its gateway", failed=1, without_room=2)),
        ("drained", counts(8, 0)),
    )
    done = run("drain", "--node", name, "--timeout", "9")
    assert done.exit_code == 0
    assert fake.requests[0] == (
        "POST",
        f"/mesh/v1/nodes/{name}/drain",
        {"timeout_s": 9.0, "end": False},
    )
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == f"node {name}: POST"
    assert lines[1].endswith(
        "moving: 1 model loaded elsewhere, 7 to go; still there: worker default-1, its gateway"
    )
    assert lines[3].endswith(
        "leaving: 8 models loaded elsewhere; 3 left to their next request; still there: its gateway"
    )
    assert lines[4].endswith("drained: 8 models loaded elsewhere")


def test_it_fails_when_the_node_is_not_drained_in_time(
    run: conftest.Run,
    fake: fake_mesh.FakeMesh,
    nodes: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_values, "LEAVE_S", 0.0)
    play(fake, nodes[1], ("leaving", counts(0, 0, "worker default-1")))
    done = run("drain", "--node", "box", "--timeout", "0")
    assert (done.exit_code, "still there: worker default-1" in done.stderr) == (1, True)


def test_a_node_that_leaves_is_drained(
    run: conftest.Run, fake: fake_mesh.FakeMesh, nodes: list[Any]
) -> None:
    nodes.pop()
    done = run("drain", "--node", "box", "--ray")
    assert (done.exit_code, "has left" in done.stdout) == (0, True)
    assert fake.requests[0][2] == {"timeout_s": 60.0, "end": True}


def test_a_wish_that_another_takes_back_ends_the_wait(
    run: conftest.Run, fake: fake_mesh.FakeMesh, nodes: list[Any]
) -> None:
    play(fake, nodes[1], ("moving", counts(0, 1)), ("ready", None))
    done = run("drain", "--node", "box")
    assert (done.exit_code, "used again" in done.stderr) == (1, True)


def test_it_is_taken_back_without_a_wait(
    run: conftest.Run, fake: fake_mesh.FakeMesh, nodes: list[Any]
) -> None:
    done = run("drain", "--node", nodes[1]["name"], "--undo")
    assert (done.exit_code, done.stdout.strip()) == (0, "node box: DELETE")
    assert [words[0] for words in fake.requests] == ["DELETE"]


@pytest.mark.parametrize("words", [(), ("--node", "box", "--self")])
def test_one_node_is_to_be_named(run: conftest.Run, words: tuple[str, ...]) -> None:
    assert run("drain", *words).exit_code == 2


def test_a_mesh_of_one_machine_looks_for_no_other_ray(
    run: conftest.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path))
    mesh_file.write(tmp_path, mesh_file.MeshFile("http://127.0.0.1:1"))
    for more in ((), ("--undo",)):
        done = run("drain", "--self", *more)
        assert (done.exit_code, "on this machine alone" in done.stderr) == (1, True)


def test_a_refusal_is_one_line(
    run: conftest.Run, fake: fake_mesh.FakeMesh, nodes: list[Any]
) -> None:
    fake.refusal = (409, '{"error": "node box is the only one"}')
    done = run("drain", "--node", nodes[1]["name"])
    assert (done.exit_code, "node box is the only one" in done.stderr) == (1, True)


def test_another_gateway_is_asked_when_the_asked_one_leaves_with_its_node(
    run: conftest.Run, fake: fake_mesh.FakeMesh, nodes: list[Any]
) -> None:
    with fake_mesh.serving() as other:
        port = other.endpoint.rpartition(":")[2]
        fake.state["gateways"][0].update(node=nodes[0]["id"], listen=f"0.0.0.0:{port}")
        other.state["nodes"] = [
            fake_mesh.node(OTHER, name="box", state="drained", drain=counts(3, 0))
        ]
        scenes = iter([("moving", counts(0, 3))])
        answer = fake.status

        def status() -> dict[str, Any]:
            nodes[1]["state"], nodes[1]["drain"] = next(scenes)
            fake.refusal = (503, "gone")
            return answer()

        fake.status = status  # type: ignore[method-assign]
        done = run("drain", "--node", "box")
        assert (done.exit_code, "3 models" in done.stdout) == (0, True)
        assert other.requests != []
