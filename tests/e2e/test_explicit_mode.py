"""What Triton's own clients and its L0_lifecycle test do with explicit model control."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests.e2e import asking, running, zoo

pytestmark = [pytest.mark.edge, pytest.mark.slow]

LATEST = 'backend: "onnxruntime"\n'
ROWS = np.ones((1, 4), np.float32)
"""By each model of the zoo these rows are summed, and multiplied by the factor of the version."""


@pytest.fixture(scope="module", params=[True, False], ids=["watched", "unwatched"])
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("explicit")
    return {"path": str(folder), "watch": request.param}


@pytest.fixture(scope="module")
def mesh(repository: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    own = tmp_path_factory.mktemp("own") / "own.onnx"
    zoo.write_onnx(own, 5)
    write_version(Path(repository["path"]), "kept", 3)
    document = {
        "pools": {"default": {"workers": 2, "memory": "1GiB"}},
        "models": [{"name": "own", "uri": str(own)}],
        "repositories": [repository],
    }
    with running.mesh(document) as started:
        yield started


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, mesh: running.Mesh) -> Iterator[Any]:
    module: Any = {"grpc": tritonclient.grpc, "http": tritonclient.http}[request.param]
    with module.InferenceServerClient(mesh.listen) as opened:
        yield opened


def write_version(folder: Path, name: str, version: int) -> None:
    (folder / name / str(version)).mkdir(parents=True, exist_ok=True)
    zoo.write_onnx(folder / name / str(version) / "model.onnx", version)


def factor(client: Any, name: str, version: str = "") -> float:
    module = (
        tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else None
    )
    make = asking.over_http if module else asking.over_grpc
    answer = client.infer(name, [make("x", ROWS, "FP32")], version).as_numpy("y")
    return float(answer[0, 0]) / 4


def max_batch_size(client: Any, name: str) -> int:
    config = client.get_model_config(
        name, **({"as_json": True} if "grpc" in type(client).__module__ else {})
    )
    return int(config.get("config", config).get("max_batch_size", 0))


def test_a_configuration_is_overridden_as_in_model_control(client: Any) -> None:
    for name in ("own", "kept"):
        client.load_model(name)
        assert client.is_model_ready(name)
        before = factor(client, name)
        with pytest.raises(InferenceServerException, match="failed to load"):
            client.load_model(name, config='"parameters": {"config": {{"max_batch_size": "16"}}}')
        client.load_model(name, config='{"max_batch_size":"16"}')
        assert max_batch_size(client, name) == 16
        assert factor(client, name) == before
        client.load_model(name)
        assert max_batch_size(client, name) != 16
        client.unload_model(name)
        assert not client.is_model_ready(name)
        client.load_model(name)
        assert factor(client, name) == before
    with pytest.raises(InferenceServerException, match="failed to load"):
        client.load_model("wrong_model_name")


def test_a_version_policy_is_overridden_as_in_l0_lifecycle(
    client: Any, repository: dict[str, Any]
) -> None:
    folder, name = Path(repository["path"]), "policy"
    shutil.rmtree(folder / name, ignore_errors=True)
    for version in (1, 2, 3):
        write_version(folder, name, version)
    (folder / name / "config.pbtxt").write_text(LATEST + "version_policy { latest {} }")
    client.load_model(name)
    assert [client.is_model_ready(name, version) for version in "123"] == [False, False, True]
    policy = {"backend": "onnxruntime", "version_policy": {"specific": {"versions": [2]}}}
    client.load_model(name, config=json.dumps(policy))
    assert [client.is_model_ready(name, version) for version in "123"] == [False, True, False]
    assert (factor(client, name), factor(client, name, "2")) == (2, 2)
    client.load_model(name)
    assert [client.is_model_ready(name, version) for version in "123"] == [False, False, True]
    assert factor(client, name) == 3


def test_files_are_overridden_as_in_l0_lifecycle(
    client: Any, repository: dict[str, Any], tmp_path: Path
) -> None:
    folder, name, other = Path(repository["path"]), "files", "override_files"
    write_version(folder, name, 3)
    client.load_model(name)
    zoo.write_onnx(tmp_path / "sent.onnx", 9)
    sent = {"file:1/model.onnx": (tmp_path / "sent.onnx").read_bytes()}
    config = json.dumps({"backend": "onnxruntime"})
    client.load_model(other, config=config, files=sent)
    assert [client.is_model_ready(name, version) for version in "13"] == [False, True]
    assert factor(client, other, "1") == 9
    client.load_model(name, config=config, files=sent)
    assert [client.is_model_ready(name, version) for version in "13"] == [True, False]
    assert factor(client, name) == 9
    client.unload_model(name)
    client.load_model(name)
    assert [client.is_model_ready(name, version) for version in "13"] == [False, True]
    assert (factor(client, name), factor(client, other)) == (3, 9)


def test_junk_over_a_good_model_changes_nothing(client: Any) -> None:
    for name, good in (("own", 5), ("kept", 3)):
        junk = {"file:1/model.onnx": b"junk", "file:9/model.onnx": b"more"}
        with pytest.raises(InferenceServerException, match="failed to load"):
            client.load_model(name, config="{}", files=junk)
        assert factor(client, name) == good
        assert client.is_model_ready(name)


def test_what_was_just_written_is_loaded(client: Any, repository: dict[str, Any]) -> None:
    folder, name = Path(repository["path"]), "fresh"
    shutil.rmtree(folder / name, ignore_errors=True)
    write_version(folder, name, 1)
    client.load_model(name)
    assert factor(client, name) == 1
    write_version(folder, name, 2)
    client.load_model(name)
    assert factor(client, name) == 2
    zoo.write_onnx(folder / name / "2" / "model.onnx", 7)
    client.load_model(name)
    assert factor(client, name) == 7
    (folder / name / "config.pbtxt").write_text("max_batch_size: {")
    with pytest.raises(InferenceServerException, match="failed to load"):
        client.load_model(name)
    assert factor(client, name) == 7
    (folder / name / "config.pbtxt").write_text(LATEST + "max_batch_size: 5")
    client.load_model(name)
    assert max_batch_size(client, name) == 5
