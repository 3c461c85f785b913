"""What `meshserve events` tells of a model's life, and of its mesh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.e2e import running
from tests.runtimes.test_onnx import linear

pytestmark = pytest.mark.edge


def told(mesh: running.Mesh, *words: str) -> list[dict[str, Any]]:
    done = mesh.cli("events", "--json", "-n", "10000", *words)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    # That files were looked at first is a change too, which may come at any moment.
    return [event for event in events if event["by"] != "files"]


def test_a_model_s_life_is_told_in_order(mesh: running.Mesh, tmp_path: Path) -> None:
    path = linear(tmp_path / "told.onnx")
    mesh.http.put("/mesh/v1/models/told", json={"uri": str(path)}).raise_for_status()
    body = {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
    mesh.http.post("/v2/models/told/infer", json=body).raise_for_status()
    mesh.http.post("/mesh/v1/models/told/unload").raise_for_status()
    mesh.http.delete("/mesh/v1/models/told").raise_for_status()
    life = ["changed", "loaded", "unloaded", "changed"]
    support.wait_until(lambda: [event["kind"] for event in told(mesh, "told")] == life)
    added, loaded, _, withdrawn = told(mesh, "told")
    assert (added["reason"], withdrawn["reason"]) == (
        "model told:1 added",
        "model told:1 withdrawn",
    )
    assert (loaded["reason"], loaded["process"].rpartition("-")[0]) == (
        "1 waited for it",
        "default",
    )
    assert loaded["took_s"] > 0


def test_the_start_is_told(mesh: running.Mesh) -> None:
    ready = {event["process"] for event in told(mesh) if event["kind"] == "ready"}
    assert {"default-0", "default-1", "tight-0", "gateway"} <= ready
