from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshserve import config
from meshserve.cli import machine_checks
from meshserve.launch import state_lock
from tests import support
from tests.runtimes.test_onnx import linear

CODE = "class Model:\n    pass\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "model.py").write_text(CODE)
    linear(tmp_path / "good.onnx")
    return tmp_path


def settings(folder: Path, **document: Any) -> config.Config:
    document.setdefault("state_dir", str(folder / "state"))
    document.setdefault("gateway", {"listen": f"127.0.0.1:{support.free_port()}"})
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    return config.load(path)


def faults(parsed: config.Config) -> dict[str, str]:
    every = [*machine_checks.place_faults(parsed), *machine_checks.model_faults(parsed)]
    return {".".join(map(str, fault.path)): fault.message for fault in every}


def test_a_good_configuration_has_no_fault(folder: Path) -> None:
    models = [
        {"name": "good", "uri": "good.onnx"},
        {"name": "code", "uri": "code", "trust": True},
        {"name": "far", "uri": "https://example.org/model.onnx"},
    ]
    assert faults(settings(folder, models=models)) == {}


def test_a_taken_port_and_one_of_another_machine_are_told(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        shown = faults(settings(folder, gateway={"listen": listen}))
    assert shown == {"gateway.listen": f"can't listen on {listen}: Address already in use"}
    foreign = faults(settings(folder, gateway={"listen": "192.0.2.1:8080"}))
    assert "Cannot assign requested address" in foreign["gateway.listen"]


def test_the_port_of_the_mesh_that_runs_is_no_fault(folder: Path) -> None:
    with socket.socket() as own, state_lock.held(folder / "state"):
        own.bind(("127.0.0.1", 0))
        own.listen()
        listen = f"127.0.0.1:{own.getsockname()[1]}"
        assert faults(settings(folder, gateway={"listen": listen})) == {}


def test_a_file_in_a_folder_s_place_is_told(folder: Path) -> None:
    path = folder / "good.onnx" / "state"
    assert faults(settings(folder, state_dir=str(path))) == {
        "state_dir": f"{folder / 'good.onnx'} is no folder"
    }


def test_code_without_trust_is_told(folder: Path) -> None:
    (folder / "forest.pkl").write_bytes(b"\x80\x04.")
    models = [{"name": "code", "uri": "code"}, {"name": "forest", "uri": "forest.pkl"}]
    pools = {"default": {"memory": "1GiB"}}
    shown = faults(settings(folder, models=models, pools=pools))
    assert sorted(shown) == ["models.0.trust", "models.1.trust"]
    assert shown["models.0.trust"].startswith("it is code: set trust: true")


def test_what_no_runtime_knows_is_told(folder: Path) -> None:
    (folder / "notes.md").write_text("x")
    shown = faults(settings(folder, models=[{"name": "notes", "uri": "notes.md"}]))
    assert "no runtime knows this artifact (notes.md)" in shown["models.0.uri"]


def test_a_missing_library_is_told_with_its_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name)
    )
    shown = faults(settings(folder, models=[{"name": "good", "uri": "good.onnx"}]))
    assert shown == {"models.0.runtime": "it needs onnxruntime: pip install 'meshserve[onnx]'"}


def test_a_missing_driver_of_the_registry_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert faults(settings(folder, registry={"url": "postgresql://u@h/d"})) == {
        "registry.url": "it needs psycopg: pip install 'meshserve[postgres]'"
    }


def test_a_pool_too_small_for_a_library_is_told(folder: Path) -> None:
    (folder / "forest.pkl").write_bytes(b"\x80\x04.")
    models = [{"name": "forest", "uri": "forest.pkl", "trust": True}]
    shown = faults(settings(folder, models=models, pools={"default": {"memory": "200MiB"}}))
    assert "pool default has 200 MiB for a worker, of which" in shown["models.0.pool"]
    assert "sklearn 220: give it `memory` of 311 MiB or more" in shown["models.0.pool"]


def test_many_models_of_a_repository_are_one_fault(folder: Path) -> None:
    repository = folder / "repository"
    repository.mkdir()
    for number in range(300):
        (repository / f"m{number:03}.pkl").write_bytes(b"\x80\x04.")
    parsed = settings(
        folder,
        repositories=[{"path": "repository"}],
        pools={"default": {"memory": "1GiB"}},
    )
    shown = faults(parsed)
    assert list(shown) == ["repositories.0.trust"]
    assert shown["repositories.0.trust"].startswith("m000, m001, m002 and 297 more: it is code")
