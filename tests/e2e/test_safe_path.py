"""A mesh that is started in a folder whose files are named like libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meshserve.worker.http import big_bodies
from tests.e2e import running, zoo

pytestmark = [pytest.mark.edge, pytest.mark.slow]

NAMES = (
    *("envoy", "numpy", "typing", "ray", "json", "onnxruntime"),
    *("asyncio", "grpc", "logging", "meshserve", "multiprocessing", "psutil", "random"),
    *("sitecustomize", "socket", "tests", "usercustomize", "vllm", "yaml"),
)
IMPORTED = "imported"
POISON = f"""\
import sys
with open(__file__ + ".{IMPORTED}", "a") as file:
    file.write(" ".join(sys.orig_argv))
raise SystemExit(f"{{__file__}} was imported")
"""
CLASS = """\
import json, random, subprocess, sys, typing

import numpy as np


class Model:
    inputs = [("x", "FP32", [-1, 4])]
    outputs = [("y", "FP32", [-1, 4])]

    def __init__(self, path, options):
        # Programs of a model's own, which are also started in the folder of the mesh.
        program = [sys.executable, "-c", "import json, random, typing; print(2)"]
        self.two = int(subprocess.run(program, capture_output=True, check=True).stdout)

    def predict(self, inputs):
        return {"y": inputs["x"] * np.float32(self.two)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("poisoned")
    for name in NAMES:
        (path / f"{name}.py").write_text(POISON)
    return path


@pytest.fixture(scope="module")
def mesh(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    models = tmp_path_factory.mktemp("models")
    zoo.write_onnx(models / "linear.onnx", 5)
    (models / "model.py").write_text(CLASS)
    own_class = {"uri": str(models / "model.py"), "trust": True}
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "models": [
            {"name": "linear", "uri": str(models / "linear.onnx")},
            {"name": "inside", **own_class, "isolate": "none"},
            {"name": "alone", **own_class, "isolate": "process"},
        ],
    }
    with running.mesh(document, is_detached=True, folder=folder) as started:
        yield started


def predict(mesh: running.Mesh, name: str, rows: int = 1) -> list[float]:
    tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": [1] * 4 * rows}
    answer = mesh.http.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200, answer.text
    data: list[float] = answer.json()["outputs"][0]["data"]
    return data


def test_a_mesh_imports_nothing_from_the_folder_of_its_start(
    mesh: running.Mesh, folder: Path
) -> None:
    assert predict(mesh, "linear") == [20, 40]
    assert predict(mesh, "inside") == [2, 2, 2, 2]
    assert predict(mesh, "alone") == [2, 2, 2, 2]
    # A process of its own reads a body of this size.
    rows = big_bodies.PROCESS_BYTES_MIN // len("1, 1, 1, 1, ") + 1
    assert predict(mesh, "linear", rows) == [20, 40] * rows
    assert mesh.living()
    assert sorted(folder.glob(f"*.{IMPORTED}")) == []


@pytest.mark.parametrize(
    "program", [[running.PROGRAM], [sys.executable, "-m", "meshserve.cli"]], ids=["entry", "module"]
)
def test_commands_import_nothing_from_the_current_folder(
    mesh: running.Mesh, folder: Path, tmp_path: Path, program: list[Any]
) -> None:
    if "-m" in program:
        # Python itself imports the package from the current folder, before any code of ours runs.
        (folder / "meshserve.py").unlink()
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    for words in (["status"], ["infer", "linear", "-i", f"x=@{tmp_path / 'x.npy'}"]):
        done = subprocess.run(
            [*program, *words],
            env={**os.environ, "MESHSERVE_HOME": str(mesh.home)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert sorted(folder.glob(f"*.{IMPORTED}")) == []
