from __future__ import annotations

import base64
import subprocess
from typing import Any

import onnxruntime
import pytest
import yaml

from meshserve import config
from meshserve.kubernetes import pod_config
from tests.kubernetes import meshes

Json = dict[str, Any]


def config_map(content: Json) -> Json:
    return pod_config.config_map(meshes.settings(content), content, meshes.groups(content))


def document(content: Json) -> Json:
    read: Json = yaml.safe_load(config_map(content)["data"]["config.yaml"])
    return read


@pytest.mark.parametrize("content", [meshes.PLAIN, meshes.FULL])
def test_the_pods_configuration_is_good_in_the_pods(
    content: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SHOP_KEY", "OPS_KEY", "MESHSERVE_CANARY_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")
    loaded = config.parse(document(content))
    assert loaded.gateway.listen == "0.0.0.0:8080"
    assert str(loaded.state_dir) == "/var/lib/meshserve/state"
    assert "meshserve-canary" in [model.name for model in loaded.models]
    assert isinstance(loaded.pools["default"].workers, int)


def test_no_secret_is_in_it() -> None:
    keys = document(meshes.FULL)["gateway"]["keys"]
    assert [key["key_env"] for key in keys] == ["SHOP_KEY", "OPS_KEY", "MESHSERVE_CANARY_KEY"]
    assert all("key" not in key for key in keys)


def test_the_users_words_stay_as_they_are() -> None:
    written = document(meshes.FULL)
    assert written["models"][:-1] == meshes.FULL["models"]
    assert "kubernetes" not in written
    pool = written["pools"]["Vision_GPU"]
    assert pool == {"workers": 2, "device": "cuda", "gpu_memory": "20GiB"}
    assert [llm["device"] for llm in written["llms"]] == ["cuda", "cpu", "cuda", "cuda"]


def test_auto_becomes_a_number_of_workers() -> None:
    content = {"kubernetes": {"groups": {"pool-default": {"replicas": {"min": 3, "max": 3}}}}}
    assert document({"models": [], **content})["pools"]["default"]["workers"] == 3


def test_no_canary_keeps_a_pool_awake() -> None:
    content = {
        "models": [],
        "pools": {"default": {"workers": 1}, "b": {"workers": 1}},
        "kubernetes": {"groups": {"pool-default": {"replicas": {"min": 0, "max": 1}}}},
    }
    (canary,) = document(content)["models"]
    assert canary["pool"] == "b"
    settings = meshes.settings(content)
    asleep = [group for group in meshes.groups(content) if not group.replicas_min]
    assert pod_config.canary_pool(settings, tuple(asleep)) == ""


def test_the_canary_adds_one() -> None:
    canary = base64.b64decode(config_map(meshes.PLAIN)["binaryData"]["canary.onnx"])
    session = onnxruntime.InferenceSession(canary, providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": [[41.0]]})
    assert answer.tolist() == [[42.0]]


def test_the_heads_script_is_good_bash() -> None:
    script = config_map(meshes.PLAIN)["data"]["keep.sh"]
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
