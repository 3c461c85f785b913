from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve import errors
from meshserve.cli import input_values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        (["x=[[1, 2.5]]"], {"x": [[1, 2.5]]}),
        (["x=[1]", "y=[a, b]"], {"x": [1], "y": ["a", "b"]}),
        (["x=true"], {"x": True}),
        (["text=a = b"], {"text": "a = b"}),
    ],
)
def test_values_by_name(given: Any, inputs: Any) -> None:
    assert input_values.inputs(given) == inputs


FILES = {
    "by name": ({"x": [[1]], "y": [2]}, {"x": [[1]], "y": [2]}),
    "one input": ([[1, 2]], [[1, 2]]),
    "a request": (
        {"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [1, 2]}]},
        {"x": [[1], [2]]},
    ),
    "an input called inputs": ({"inputs": [[1, 2]]}, {"inputs": [[1, 2]]}),
}


@pytest.mark.parametrize(("written", "inputs"), FILES.values(), ids=FILES)
def test_files(folder: Path, written: Any, inputs: Any) -> None:
    (folder / "f.json").write_text(json.dumps(written))
    assert input_values.inputs(["f.json"]) == inputs


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("[[1, 2]]"))
    assert input_values.inputs(["-"]) == [[1, 2]]


def test_a_file_for_one_name(folder: Path) -> None:
    np.save(folder / "rows.npy", np.eye(2))
    (folder / "rows.json").write_text("[3]")
    read = input_values.inputs(["x=@rows.npy", "y=@rows.json"])
    assert (read["x"].tolist(), read["y"]) == ([[1.0, 0.0], [0.0, 1.0]], [3])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["no.json"], "--input: no.json: no such file or directory"),
        (["x=@no.npy"], "--input: no.npy: no such file or directory"),
        (["bad.json"], "--input: bad.json:2:1: invalid JSON: expecting value"),
        (
            ["x=["],
            "--input x=[: the value is no JSON; expected something like NAME=[[1, 2], [3, 4]]",
        ),
        (
            ["x=1", "f.json"],
            (
                "--input f.json: a file has all inputs, so it is given alone; "
                "a single one is NAME=VALUE"
            ),
        ),
        (["short.json"], "--input: the data of 'x' does not fill its shape [3]"),
    ],
)
def test_unreadable_input_has_its_reason(folder: Path, given: Any, said: str) -> None:
    (folder / "bad.json").write_text("[\n")
    (folder / "short.json").write_text('{"inputs": [{"name": "x", "shape": [3], "data": [1]}]}')
    with pytest.raises(errors.ConfigInvalid) as caught:
        input_values.inputs(given)
    assert caught.value.message == said
