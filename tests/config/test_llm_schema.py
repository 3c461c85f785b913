"""LLMs in whole files: good ones, and what bad ones say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshserve import config, errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import llm_spec

ON_CPUS = cluster_control.WorkerCapacity(4, 0)
ON_GPUS = cluster_control.WorkerCapacity(4, 2)
BAD = {
    "unknown key": (
        "tensor_parallel: 2",
        "tensor_parallel: unknown key; did you mean 'tensor_parallel_size'?",
    ),
    "no GPU at all": (
        "tensor_parallel_size: 0",
        "tensor_parallel_size: expected at least 1, got 0",
    ),
    "fewer at most than at least": (
        "replicas: {min: 3, max: 2}",
        "replicas: min is 3, but max only 2",
    ),
    "none at most": ("replicas: {max: 0}", "replicas.max: expected at least 1, got 0"),
    "unknown key of replicas": (
        "replicas: {mix: 0}",
        "replicas.mix: unknown key; did you mean 'min'?",
    ),
    "a share on a CPU": ("share: g, device: cpu", "share needs GPUs: on a CPU engines can't sleep"),
    "a share of several": (
        "share: g, replicas: {max: 2}",
        "LLMs that share GPUs have one replica each: leave replicas.max out",
    ),
    "a level of sleep": ("sleep_level: 3", "sleep_level: expected 1 or 2, got 3"),
    "a flag as a level": ("sleep_level: true", "sleep_level: expected a whole number, got true"),
    "a date for the engine": (
        "engine: {seed: 2026-01-01}",
        "engine.seed: expected a JSON value (put a date in quotes), got datetime.date(2026, 1, 1)",
    ),
    "a device": (
        "device: gpu",
        "device: expected auto, cpu or cuda, got 'gpu'; did you mean 'cpu'?",
    ),
    "an adapter without weights": (
        "adapters: [{name: x}]",
        "adapters[0].uri: is needed, but not given",
    ),
    "an adapter that is not there": (
        "adapters: [{name: x, uri: nowhere}]",
        "adapters[0].uri: no such file or folder: {folder}/nowhere",
    ),
    "no time to wait": ("held: {wait_s: 0}", "held.wait_s: expected more than 0, got 0"),
    "its own name": (
        "aliases: [tiny]",
        "aliases[0]: alias 'tiny' is the name of an LLM; first as llms[0].name on line 3",
    ),
}
GOOD = """
models: [{name: digits, uri: digits.onnx}]
llms:
  - name: tiny
    uri: weights
    aliases: [org/tiny]
    adapters: [{name: tiny-sql, uri: "s3://bucket/sql"}]
    tensor_parallel_size: 2
    pipeline_parallel_size: 3
    replicas: {min: 0, max: 2}
    idle_timeout_s: 5
    cpu_kv_cache: 2GiB
    start_timeout_s: 11
    stall_timeout_s: 7.5
    held: {requests: 3, bytes: 1KiB, wait_s: 9}
    engine: {max_model_len: 512, enforce_eager: true}
    runtime: other
  - {name: big, uri: "hf://org/big", share: a, sleep_level: 2, residency_s_min: 0}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "digits.onnx").touch()
    return tmp_path


def load(text: Any) -> Any:
    Path("c.yaml").write_text(text)
    return config.load("c.yaml")


def message_for(text: Any) -> Any:
    with pytest.raises(errors.ConfigInvalid) as caught:
        load(text)
    return caught.value.message


@pytest.mark.parametrize(("keys", "words"), BAD.values(), ids=BAD)
def test_a_bad_llm_has_every_mistake_with_its_position(folder: Path, keys: Any, words: Any) -> None:
    where = "llms[0]: " if words.startswith(("share", "LLMs")) else "llms[0]."
    message = message_for(f"llms:\n  -\n    {{name: tiny, uri: weights, {keys}}}\n")
    assert message == f"c.yaml:3: {where}{words}".replace("{folder}", str(folder))


@pytest.mark.usefixtures("folder")
def test_a_name_that_a_model_has_is_refused() -> None:
    text = GOOD.replace("name: digits", "name: tiny-sql")
    assert message_for(text) == (
        "c.yaml:7: llms[0].adapters[0].name: adapter 'tiny-sql' is the name of a model; "
        "first as models[0].name on line 2"
    )


def test_a_name_may_be_that_of_hugging_face() -> None:
    document = {"llms": [{"name": "org/tiny", "uri": "hf://org/tiny"}]}
    assert config.parse(document).llms[0].name == "org/tiny"


def test_an_llm_becomes_the_cores_value(folder: Path) -> None:
    tiny, big = (llm.spec_on(ON_GPUS) for llm in load(GOOD).llms)
    assert tiny == llm_spec.LlmSpec(
        name="tiny",
        uri=f"{folder}/weights",
        aliases=("org/tiny",),
        adapters=(llm_spec.Adapter("tiny-sql", "s3://bucket/sql"),),
        tensor_parallel_size=2,
        pipeline_parallel_size=3,
        replicas_min=0,
        replicas_max=2,
        idle_timeout_s=5.0,
        cpu_kv_cache_bytes=2 << 30,
        start_timeout_s=11.0,
        stall_timeout_s=7.5,
        held=llm_spec.HoldLimits(3, 1024, 9.0),
        engine={"max_model_len": 512, "enforce_eager": True},
        runtime="other",
    )
    assert big == llm_spec.LlmSpec(
        "big", "hf://org/big", share="a", sleep_level=2, residency_s_min=0.0
    )


@pytest.mark.usefixtures("folder")
def test_a_document_with_llms_reads_back_equal() -> None:
    read = load(GOOD)
    assert config.parse(json.loads(json.dumps(config.document(read)))) == read


@pytest.mark.parametrize(
    ("replicas", "largest"), [({}, 1), ({"min": 0}, 1), ({"min": 3}, 3), ({"min": 1, "max": 4}, 4)]
)
def test_the_largest_number_of_replicas_has_a_default(replicas: Any, largest: int) -> None:
    read = config.parse({"llms": [{"name": "l", "uri": "/l", "replicas": replicas}]})
    assert read.llms[0].spec_on(ON_CPUS).replicas_max == largest


def test_the_defaults_are_those_of_the_core() -> None:
    assert config.parse({"llms": [{"name": "l", "uri": "/l"}]}).llms[0].spec_on(
        ON_GPUS
    ) == llm_spec.LlmSpec("l", "/l")


@pytest.mark.parametrize(
    ("device", "expected"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")]
)
def test_a_named_device_is_kept(device: str, expected: str) -> None:
    read = config.parse({"llms": [{"name": "l", "uri": "/l", "device": device}]})
    assert read.llms[0].spec_on(ON_GPUS).device == expected


@pytest.mark.usefixtures("folder")
def test_faults_of_a_further_check_have_their_position() -> None:
    Path("c.yaml").write_text(GOOD)
    with pytest.raises(
        errors.ConfigInvalid, match=r"^c\.yaml:16: llms\[0\]\.engine\.enforce_eager: not today$"
    ):
        config.load(
            "c.yaml",
            lambda read: (
                [config.Diagnostic(("llms", 0, "engine", "enforce_eager"), "not today")]
                if read.llms
                else []
            ),
        )


@pytest.mark.usefixtures("folder")
def test_a_bad_file_is_not_checked_further() -> None:
    Path("c.yaml").write_text("llms: [{name: a}]\n")
    with pytest.raises(errors.ConfigInvalid, match=r"llms\[0\]\.uri"):
        config.load("c.yaml", lambda _: pytest.fail("it is bad already"))
