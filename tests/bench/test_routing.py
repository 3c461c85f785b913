from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench import callers, environments, program, routing, runs, systems, tiny
from meshserve.protocol.pb import inference_pb2 as pb

CONSOLE = Console(quiet=True)
BRIEF = routing.Plan(
    (systems.BARE,), (1, 4), (("tritonclient", 2), ("grpc.aio", 2)), ("100 KB",), 0.1
)


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    (tmp_path / "models").mkdir()
    return tmp_path


@pytest.fixture
def bare(folder: Any) -> Iterator[Any]:
    models = routing.write_models(folder / "models")
    with systems.bare(models, folder) as running:
        running.served.wait_until(lambda: routing.answers(running), 60)
        yield running


@pytest.mark.edge
def test_the_bare_server_answers_what_onnx_runtime_does(bare: Any, folder: Any) -> None:
    routing.check(bare, folder / "models")
    tiny.write(folder / "models" / "tiny.onnx", routing.SEED + 1)
    with pytest.raises(program.WrongAnswer):
        routing.check(bare, folder / "models")


@pytest.mark.edge
def test_python_clients_see_a_wrong_answer(bare: Any, folder: Any) -> None:
    np.savez(folder / "row.npz", x=routing.X, y=np.zeros((1, tiny.OUTPUTS), np.float32))
    calls = callers.Calls(bare.endpoint, "tiny", "grpc.aio", 1, 3, {})
    with pytest.raises(callers.CallFailed):
        callers.run(calls, folder / "row.npz")


@pytest.mark.edge
def test_errors_are_not_taken_for_answers(bare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load = routing.Load(bare, 0.1)
    send = load._send
    other = lambda model, x, how: send(model if how.requests == 1 else "nobody", x, how)  # noqa: E731
    monkeypatch.setattr(load, "_send", other)
    with pytest.raises(program.WrongAnswer, match="another length"):
        load.by_h2load("tiny", routing.X, 2)


@pytest.mark.edge
def test_everything_in_the_plan_is_run(folder: Any) -> None:
    figures = routing.one_round(CONSOLE, BRIEF, folder, {})[systems.BARE]
    assert list(figures.runs) == [
        "1 in flight",
        "4 in flight",
        "tritonclient, 2 in flight",
        "grpc.aio, 2 in flight",
        "100 KB",
    ]
    assert all(run.requests_per_s > 0 for run in figures.runs.values())
    assert figures.memory_mib > 10


def not_installed(_models: Any, _folder: Any) -> None:
    raise environments.NotInstalled("ERROR: no such wheel")


def test_a_peer_that_cannot_be_had_is_missing_with_its_reason(
    folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(systems.STARTS, systems.PYTRITON, not_installed)
    missing: dict[str, str] = {}
    plan = routing.Plan((systems.PYTRITON, systems.ALONE), (1,), (), (), 0.05)
    figures = routing.one_round(CONSOLE, plan, folder, missing)
    assert missing == {systems.PYTRITON: "ERROR: no such wheel"}
    assert list(figures) == [systems.ALONE]


def test_ours_is_never_missing(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(systems.STARTS, systems.OURS, not_installed)
    with pytest.raises(environments.NotInstalled):
        routing.one_round(CONSOLE, routing.Plan((systems.OURS,), (1,), (), (), 0.05), folder, {})


def test_a_reason_is_one_line() -> None:
    assert (
        routing.reason(ValueError("it ended with exit code 1\nTraceback\nImportError: no module"))
        == "it ended with exit code 1: ImportError: no module"
    )
    assert routing.reason(ValueError()) == "ValueError"


def test_the_request_names_the_model_and_carries_its_row() -> None:
    message = pb.ModelInferRequest.FromString(routing.request_body("tiny", routing.X)[5:])
    assert message.model_name == "tiny"
    np.testing.assert_array_equal(
        np.frombuffer(message.raw_input_contents[0], np.float32), routing.X[0]
    )


def test_cpu_is_told_by_process_title() -> None:
    mine = os.getpid()
    shares = routing.cpu_us_by_process({mine: 1.0}, {mine: 1.5, -1: 0.25}, requests=1000)
    assert list(shares.values()) == [500.0, 250.0]
    assert "gone" in shares


def test_in_process_is_measured_without_a_server(folder: Any) -> None:
    models = routing.write_models(folder / "models")
    assert routing.alone(models, 0.05).runs[runs.in_flight(1)].requests_per_s > 100


def test_every_start_is_a_block() -> None:
    assert set(routing.WHOLE.systems) - set(systems.STARTS) == {systems.ALONE}
    assert all(
        isinstance(start(Path(), Path()), contextlib.AbstractContextManager)
        for start in systems.STARTS.values()
    )
