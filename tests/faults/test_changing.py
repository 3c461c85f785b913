"""A second `up`, a restart of everything, and a watched repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

POOLS = {"default": {"workers": 2, "memory": "1GiB"}}


def is_served(mesh: running.Mesh, name: str) -> bool:
    return mesh.http.get(f"/v2/models/{name}/ready").status_code == 200


def scaled(mesh: running.Mesh, name: str) -> float:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}]}
    answer = mesh.http.post(f"/v2/models/{name}/infer", json=body).raise_for_status().json()
    return float(answer["outputs"][0]["data"][0])


def test_a_second_up_applies_the_difference_and_restarts_nothing(tmp_path: Path) -> None:
    models = traffic.models(tmp_path, 3)
    with running.mesh({"pools": POOLS, "models": models[:2]}) as mesh:
        before = mesh.pids()
        assert scaled(mesh, "m1") == 1.0
        changed = {**mesh.document, "models": [{**models[1], "uri": models[2]["uri"]}, models[2]]}
        (mesh.home / "config.yaml").write_text(yaml.safe_dump(changed))
        said = mesh.cli("up", str(mesh.home / "config.yaml"))
        assert said.returncode == 0, said.stderr
        assert "m0" in said.stdout
        assert not is_served(mesh, "m0")
        # What it was answers until the new one is loaded.
        support.wait_until(lambda: scaled(mesh, "m1") == 2.0, support.WAIT_S, "the replaced model")
        assert scaled(mesh, "m2") == 2.0
        assert mesh.pids() == before
        assert "nothing to change" in mesh.cli("up", str(mesh.home / "config.yaml")).stdout


def test_a_config_that_is_wrong_changes_nothing(tmp_path: Path) -> None:
    with running.mesh({"pools": POOLS, "models": traffic.models(tmp_path, 1)}) as mesh:
        (mesh.home / "config.yaml").write_text("modles: []\n")
        said = mesh.cli("up", str(mesh.home / "config.yaml"))
        assert said.returncode == 2
        assert "config.yaml:1" in said.stderr
        assert "models" in said.stderr
        assert scaled(mesh, "m0") == 0.0


def test_what_was_registered_at_run_time_survives_a_restart_of_everything(tmp_path: Path) -> None:
    model = traffic.write_model(tmp_path / "late.onnx", 7)
    home = tmp_path / "home"
    with running.mesh({"pools": POOLS}, home=home) as mesh:
        mesh.http.put(
            "/mesh/v1/models/late", json={"uri": str(model), "aliases": ["latest"]}
        ).raise_for_status()
        assert scaled(mesh, "latest") == 7.0
    with running.mesh({"pools": POOLS}, home=home) as mesh:
        assert (scaled(mesh, "late"), scaled(mesh, "latest")) == (7.0, 7.0)


def test_a_repository_is_followed_within_five_seconds(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    traffic.write_model(repository / "one" / "1" / "model.onnx", 1)
    with running.mesh(
        {"pools": POOLS, "repositories": [{"path": str(repository), "watch": True}]}
    ) as mesh:
        support.wait_until(lambda: is_served(mesh, "one"), support.WAIT_S, "the first model")
        assert scaled(mesh, "one") == 1.0
        traffic.write_model(repository / "two" / "1" / "model.onnx", 2)
        support.wait_until(lambda: is_served(mesh, "two"), support.WAIT_S, "a model that was added")
        traffic.write_model(repository / "one" / "1" / "model.onnx", 5)
        support.wait_until(
            lambda: scaled(mesh, "one") == 5.0, support.WAIT_S, "a model that was changed"
        )
        shutil.rmtree(repository / "two")
        support.wait_until(
            lambda: not is_served(mesh, "two"), support.WAIT_S, "a model that was removed"
        )
