from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshserve import errors
from tests import tiny_llm
from tests.contracts import engine as contract
from tests.e2e import llm_world
from tests.llm import program

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(400)]

STALL_S = 20.0
"""Five engines start at once on two cores."""

SPEC = {
    "cpu_kv_cache_bytes": 64 << 20,
    "stall_timeout_s": STALL_S,
    "engine": {"max_model_len": 512, "dtype": "float32", "max_num_seqs": 16, "max_loras": 1},
}


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: 1 << 20])


def unknown(folder: Path) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(settings | {"architectures": ["OtherForCausalLM"], "model_type": "other"})
    )


def missing(folder: Path) -> None:
    (folder / "config.json").unlink()


SPOILS = {
    "truncated": (truncated, "afetensor"),
    "unknown": (unknown, "other"),
    "missing": (missing, "config"),
}
"""How a model's folder is spoilt, and a word of vLLM's reason for not loading it."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, its adapter, and three models that can't be loaded."""
    paths = {name: tmp_path_factory.mktemp(name) for name in ("llama", "adapter", *SPOILS)}
    tiny_llm.llama(paths["llama"], **tiny_llm.WIDE)
    tiny_llm.adapter(paths["adapter"], paths["llama"])
    for name, (spoil, _) in SPOILS.items():
        spoil(tiny_llm.llama(paths[name]))
    return paths


@pytest.fixture(scope="module")
def starts(
    folders: dict[str, Path],
) -> Iterator[dict[str, concurrent.futures.Future[program.Served]]]:
    """The futures of five servers that start at once, for a start is mostly imports."""
    adapters = {program.ADAPTER: str(folders["adapter"])}
    models = {name: program.Model("vllm", str(folders[name]), {}, SPEC) for name in SPOILS}
    models["whole"] = program.Model("vllm", str(folders["llama"]), adapters, SPEC)
    models["split"] = program.Model(
        "vllm", str(folders["llama"]), {}, SPEC | {"tensor_parallel_size": 2}
    )
    with concurrent.futures.ThreadPoolExecutor(len(models)) as pool:
        futures = {name: pool.submit(program.Served, model) for name, model in models.items()}
    yield futures
    for future in futures.values():
        if future.exception() is None:
            future.result().end()


@pytest.fixture
def served(starts: dict[str, concurrent.futures.Future[program.Served]]) -> program.Served:
    return starts["whole"].result()


@pytest.fixture
def split(starts: dict[str, concurrent.futures.Future[program.Served]]) -> program.Served:
    return starts["split"].result()


@pytest.fixture
def llama(folders: dict[str, Path]) -> Path:
    return folders["llama"]


def token_ids(served: program.Served, name: str = program.NAME) -> list[list[int]]:
    body = {
        "model": name,
        "max_tokens": llm_world.TOKENS,
        "min_tokens": llm_world.TOKENS,
        "temperature": 0,
        "return_token_ids": True,
    }
    answers = [
        served.client.post("/v1/completions", json=body | {"prompt": prompt}).json()
        for prompt in llm_world.PROMPTS
    ]
    return [answer["choices"][0]["token_ids"] for answer in answers]


def test_greedy_tokens_are_those_of_transformers(served: program.Served, llama: Path) -> None:
    assert token_ids(served) == llm_world.tokens(llama)


def test_tokens_of_an_adapter_are_those_of_peft(
    served: program.Served, folders: dict[str, Path]
) -> None:
    llama = folders["llama"]
    assert (
        token_ids(served, program.ADAPTER)
        == llm_world.tokens(llama, folders["adapter"])
        != llm_world.tokens(llama)
    )


def test_a_prompt_over_the_context_is_a_bad_request(served: program.Served) -> None:
    answer = served.client.post(
        "/v1/completions", json={"model": program.NAME, "prompt": "word " * 600}
    )
    assert answer.status_code == 400
    assert "512" in answer.json()["error"]["message"]


class TestVllmEngine(contract.EngineContract):
    """It keeps the contract that the fake keeps."""

    choices = 8


def test_greedy_tokens_are_the_same_on_two_processes(split: program.Served, llama: Path) -> None:
    assert token_ids(split) == llm_world.tokens(llama)


class TestVllmEngineStopped(contract.StallContract):
    choices = 32
    WITHIN_S = STALL_S + 1

    @pytest.fixture
    def served(self, split: program.Served) -> program.Served:
        return split


@pytest.mark.parametrize("name", SPOILS)
def test_a_model_that_can_not_be_loaded_fails_with_vllms_reason(
    starts: dict[str, concurrent.futures.Future[program.Served]], name: str
) -> None:
    failure = starts[name].exception()
    assert isinstance(failure, errors.LoadFailed)
    assert SPOILS[name][1] in failure.message
    assert "See root cause above" not in failure.message
