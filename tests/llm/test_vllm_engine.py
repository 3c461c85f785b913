from __future__ import annotations

import json

import pytest

from meshserve import errors
from tests import support, tiny_llm
from tests.contracts import engine as contract
from tests.llm import program

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(400), support.real_engines]

SPEC = {
    "cpu_kv_cache_bytes": 64 << 20,
    "stall_timeout_s": contract.STALL_S,
    "engine": {"max_model_len": 512, "dtype": "float32", "max_num_seqs": 16, "max_loras": 1},
}
PROMPTS = ("def wait(", "import sys\n", "class Signature:")
TOKENS = 12


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llm.llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, llama):
    return tiny_llm.adapter(tmp_path_factory.mktemp("adapter"), llama)


@pytest.fixture(scope="module")
def served(llama, adapter):
    made = program.Served(program.Model("vllm", str(llama), {program.ADAPTER: str(adapter)}, SPEC))
    yield made
    made.end()


@pytest.fixture(scope="module")
def split(llama):
    made = program.Served(program.Model("vllm", str(llama), {}, SPEC | {"tensor_parallel_size": 2}))
    yield made
    made.end()


def expected(llama, adapter=None):
    """What transformers makes of the prompts, token by token."""
    import peft  # noqa: PLC0415 - costs seconds that only these tests need to spend
    import transformers  # noqa: PLC0415

    tokenizer = transformers.AutoTokenizer.from_pretrained(llama)
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter)
    inputs = [tokenizer(prompt, return_tensors="pt") for prompt in PROMPTS]
    made = [model.generate(**each, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)[0] for each in inputs]
    return [tokens[-TOKENS:].tolist() for tokens in made]


def found(served, name=program.NAME):
    body = {"model": name, "max_tokens": TOKENS, "min_tokens": TOKENS, "temperature": 0, "return_token_ids": True}
    answers = [served.client.post("/v1/completions", json=body | {"prompt": prompt}).json() for prompt in PROMPTS]
    return [answer["choices"][0]["token_ids"] for answer in answers]


def test_greedy_tokens_are_those_of_transformers(served, llama):
    assert found(served) == expected(llama)


def test_an_adapter_s_tokens_are_those_of_peft(served, llama, adapter):
    assert found(served, program.ADAPTER) == expected(llama, adapter) != expected(llama)


def test_a_prompt_over_the_context_is_a_bad_request(served):
    answer = served.client.post("/v1/completions", json={"model": program.NAME, "prompt": "word " * 600})
    assert answer.status_code == 400
    assert "512" in answer.json()["error"]["message"]


class TestVllmEngine(contract.EngineContract):
    """It keeps to what the fake keeps to."""

    choices = 8


def test_greedy_tokens_are_the_same_on_two_processes(split, llama):
    assert found(split) == expected(llama)


class TestVllmEngineKilled(contract.FailureContract):
    choices = 32

    @pytest.fixture
    def served(self, split):
        return split


class TestVllmEngineStopped(contract.StallContract):
    choices = 32

    @pytest.fixture
    def served(self, llama):
        made = program.Served(program.Model("vllm", str(llama), {}, SPEC))
        yield made
        made.end()


def vectors(folder):
    """What transformers makes of the prompts: the last token's state, of length one."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        states = [model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0, -1] for prompt in PROMPTS]
    return [torch.nn.functional.normalize(state, dim=0).tolist() for state in states]


def test_a_model_without_a_head_makes_vectors_and_is_watched_too(tmp_path):
    made = program.Served(program.Model("vllm", str(tiny_llm.embedder(tmp_path)), {}, SPEC))
    try:
        found = [each.embedding for each in made.openai.embeddings.create(model=program.NAME, input=list(PROMPTS)).data]
        assert found == [pytest.approx(vector, abs=1e-4) for vector in vectors(tmp_path)]
        made.call("strike", "stop")
        answer = made.client.post("/v1/embeddings", json={"model": program.NAME, "input": "a"})
        assert answer.status_code == 500
        assert "got on" in made.call("failed")
    finally:
        made.end()


def truncated(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: 1 << 20])


def unknown(folder):
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"architectures": ["OtherForCausalLM"], "model_type": "other"}))


def missing(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(("spoil", "reason"), [(truncated, "afetensor"), (unknown, "other"), (missing, "config")])
def test_a_model_that_can_t_be_loaded_fails_with_vllm_s_reason(tmp_path, spoil, reason):
    spoil(tiny_llm.llama(tmp_path))
    with pytest.raises(errors.LoadFailed, match=reason) as caught:
        program.Served(program.Model("vllm", str(tmp_path), {}, SPEC))
    assert "See root cause above" not in caught.value.message
