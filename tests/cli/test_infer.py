from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.cli import conftest, fake_mesh
from tests.client import server


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A gRPC server with a few models that the command line finds by the environment."""
    servicer = server.Inference()
    with server.serving(servicer) as endpoint:
        monkeypatch.setenv("MESHSERVE_ENDPOINT", endpoint)
        yield servicer


def test_grpc(mesh: Any, run: conftest.Run) -> None:
    done = run("infer", "echo", "--input", "x=[[1, 2.5], [3, 4]]")
    assert (done.exit_code, done.stdout.splitlines()) == (
        0,
        ["y  FP32 [2, 2]", "[[1.  2.5]", " [3.  4. ]]"],
    )
    assert len(mesh.asked("ModelInfer")) == 1


@pytest.mark.usefixtures("mesh")
def test_several_inputs_and_outputs_by_name(run: conftest.Run) -> None:
    done = run("infer", "pair", "-i", "a=[[1, 2]]", "-i", "b=[[3, 4]]", "--json")
    outputs = json.loads(done.stdout)["outputs"]
    assert outputs == [
        {"name": "c", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]},
        {"name": "d", "datatype": "INT64", "shape": [1, 2], "data": [3, 4]},
    ]


@pytest.mark.usefixtures("mesh")
def test_text(run: conftest.Run) -> None:
    assert json.loads(run("infer", "words", "-i", "x=[[a, é]]", "--json").stdout)["outputs"][0][
        "data"
    ] == ["a", "é"]


@pytest.mark.usefixtures("mesh")
def test_standard_input_is_the_only_input(run: conftest.Run) -> None:
    assert "FP32 [1, 2]" in run("infer", "echo", "--input", "-", input="[[5, 6]]").stdout


@pytest.mark.parametrize("version", ["", "1"])
def test_a_version_can_be_named(mesh: Any, run: conftest.Run, version: str) -> None:
    done = run("infer", "echo", "-i", "x=[[1, 2]]", "--version", version, "--json")
    assert mesh.asked("ModelInfer")[0].model_version == version
    assert json.loads(done.stdout)["model_version"] == (version or "2")


@pytest.mark.usefixtures("mesh")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nobody", "-i", "x=[[1, 2]]"], 1, "error: no model nobody\n"),
        (
            ["echo", "-i", "z=[[1, 2]]"],
            1,
            "error: model echo has no input 'z': it takes x (FP32)\n",
        ),
        (["echo", "-i", "no.json"], 2, "--input: no.json: no such file or directory\n"),
    ],
)
def test_errors_are_one_line(run: conftest.Run, words: Any, code: int, said: str) -> None:
    done = run("infer", *words)
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", said)


def test_a_model_that_raises(run: conftest.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = server.Failing(grpc.StatusCode.INTERNAL, "division\nby zero")
    with server.serving(failing) as endpoint:
        monkeypatch.setenv("MESHSERVE_ENDPOINT", endpoint)
        assert run("infer", "echo", "-i", "x=[[1, 2]]").stderr == "error: division by zero\n"


def test_the_api_key_is_sent(mesh: Any, run: conftest.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHSERVE_API_KEY", "s3cret")
    run("infer", "echo", "-i", "x=[[1, 2]]")
    assert {metadata["authorization"] for _, _, metadata in mesh.seen} == {"Bearer s3cret"}


def test_rest(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    done = run("infer", "m", "--rest", "--input", "x=[[1, 2.5]]")
    assert done.stdout.splitlines() == ["y  FP32 [1, 2]", "[[2. 5.]]"]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.5]}
    assert fake.requests[-1] == ("POST", "/v2/models/m/infer", {"inputs": [tensor]})


def test_rest_of_one_version(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    run("infer", "a/b", "--rest", "--version", "2", "--input", "x=[[1, 2]]")
    assert fake.requests[0][1] == "/v2/models/a%2Fb/versions/2"


@pytest.mark.usefixtures("fake")
def test_rest_has_no_nan(run: conftest.Run) -> None:
    done = run("infer", "m", "--rest", "--input", "x=[[.nan, 1]]")
    assert (done.exit_code, done.stderr) == (
        1,
        "error: JSON has no NaN and no infinity: ask with --grpc\n",
    )


def test_an_input_is_needed(run: conftest.Run) -> None:
    assert run("infer", "m").exit_code == 2
