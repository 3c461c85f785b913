from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshserve import config, errors


def section(**keys: Any) -> Any:
    return config.parse({"kubernetes": keys}).kubernetes


def test_all_has_a_default() -> None:
    assert section().name == "mesh"
    assert section().gcs.backend == "none"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"gcs": {"backend": "redis"}}, "needs redis_address"),
        ({"gcs": {"redis_address": "a:1"}}, "only used with backend: redis"),
        ({"gcs": {"backend": "etcd"}}, "backend"),
        ({"feature_gates": ["Unknown"]}, "feature_gates"),
        ({"drain_s": 0}, "drain_s"),
        ({"groups": {"a": {"replicas": {"min": 1}}}}, "replicas.max"),
        ({"groups": {"a": {"replicas": {"min": -1, "max": 1}}}}, "replicas.min"),
        ({"image": "a b"}, "image"),
        ({"nmae": "a"}, "nmae"),
    ],
)
def test_wrong_values_are_told(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(errors.ConfigInvalid) as caught:
        section(**keys)
    assert reason in caught.value.message


def test_a_configuration_for_other_machines_reads_nothing_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "gateway: {keys: [{client: a, key_env: NOT_SET}, {client: b, key: text}]}\n"
        "models: [{name: m, uri: /nowhere/m.onnx}]\n"
    )
    loaded, content = config.load_elsewhere(path)
    assert [config.variable_of(key.key) for key in loaded.gateway.keys] == ["NOT_SET", None]
    assert content["models"] == [{"name": "m", "uri": "/nowhere/m.onnx"}]
    path.write_text("models: [{name: m, uri: m.onnx}]\n")
    with pytest.raises(errors.ConfigInvalid, match=r"models\[0\].uri: expected an absolute path"):
        config.load_elsewhere(path)
