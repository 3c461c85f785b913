"""Tiny LLMs for a mesh, the answers of transformers to compare with, and the engines' processes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests import support, tiny_llm
from tests.e2e import running
from tests.faults import traffic
from tests.llm import hub

PROMPTS = ("def wait(", "import sys\n", "class Signature:")
TOKENS, LONG = 12, 480
IDLE_S = 6.0
START_S = 240.0
BEGUN_S = 0.3
STALL_S = 30.0
"""Long, because two cores run several engines, their clients and a mesh: an engine without a core
for ten seconds was once taken for a stalled one."""

REQUEST_BYTES_MAX = 2 << 20
SMALL_MODELS = 20
ENGINE = {"max_model_len": tiny_llm.CONTEXT, "dtype": "float32", "max_num_seqs": 64, "max_loras": 1}


@dataclass(frozen=True)
class Weights:
    """The folder of each LLM."""

    tiny: Path
    adapter: Path
    rare: Path
    vectors: Path
    spoilt: Path


def make(folder: Path) -> Weights:
    """All of them; the last one's weights end too early."""
    for name in ("tiny", "adapter", "rare", "vectors", "spoilt"):
        (folder / name).mkdir()
    tiny, spoilt = (
        tiny_llm.llama(folder / "tiny", **tiny_llm.WIDE),
        tiny_llm.llama(folder / "spoilt", seed=2),
    )
    weights = spoilt / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: 1 << 20])
    rare, vectors = tiny_llm.llama(folder / "rare", seed=1), tiny_llm.embedder(folder / "vectors")
    return Weights(tiny, tiny_llm.adapter(folder / "adapter", tiny), rare, vectors, spoilt)


def document(weights: Weights, folder: Path) -> dict[str, Any]:
    """Return a configuration with small models, permanent LLMs and LLMs on demand."""
    common = {
        "device": "cpu",
        "cpu_kv_cache": "64MiB",
        "engine": ENGINE,
        "stall_timeout_s": STALL_S,
        "start_timeout_s": 120,
    }
    seldom = {"replicas": {"min": 0}, **common}
    tiny = {
        "aliases": ["org/tiny"],
        "adapters": [{"name": "tiny-sql", "uri": str(weights.adapter)}],
    }
    return {
        "gateway": {"request_bytes_max": REQUEST_BYTES_MAX},
        "pools": {"default": {"workers": 1, "memory": "512MiB"}},
        "models": traffic.models(folder, SMALL_MODELS),
        "llms": [
            {"name": "tiny", "uri": str(weights.tiny), **tiny, **common},
            {"name": "vectors", "uri": str(weights.vectors), **common},
            {"name": "rare", "uri": f"hf://{hub.REPOSITORY}", "idle_timeout_s": IDLE_S, **seldom},
            {"name": "spoilt", "uri": str(weights.spoilt), **seldom},
        ],
    }


def tokens(folder: Path, adapter: Path | None = None) -> Any:
    """Return the tokens that transformers and peft generate for the prompts."""
    import peft  # noqa: PLC0415 - costs seconds that only these tests need to spend
    import transformers  # noqa: PLC0415

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    if adapter is not None:
        model = peft.PeftModel.from_pretrained(model, adapter)
    inputs = [tokenizer(prompt, return_tensors="pt") for prompt in PROMPTS]
    outputs = [
        model.generate(**prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)[0]
        for prompt in inputs
    ]
    return [tokens[-TOKENS:].tolist() for tokens in outputs]


def vectors(folder: Path) -> Any:
    """Return the embeddings of transformers: the last token's state, normalised to length 1."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder)
    with torch.no_grad():
        states = [
            model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0, -1]
            for prompt in PROMPTS
        ]
    return [torch.nn.functional.normalize(state, dim=0).tolist() for state in states]


def said(mesh: running.Mesh, name: str) -> dict[str, Any]:
    """Return one LLM's part of the status."""
    return next(llm for llm in mesh.status()["llms"] if llm["name"] == name)


def family(pid: int) -> list[psutil.Process]:
    """Return a replica's process and all its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return []


def core(mesh: running.Mesh, name: str) -> psutil.Process:
    """Return the process of the engine core of an LLM with one replica, once it has its title."""
    cores: list[psutil.Process] = []

    def is_running() -> bool:
        pids = [replica["pid"] for replica in said(mesh, name)["replicas"] if replica["pid"]]
        with contextlib.suppress(psutil.NoSuchProcess):
            cores[:] = [
                process
                for pid in pids
                for process in family(pid)
                if "EngineCore" in "".join(process.cmdline()[:1])
            ]
        return len(cores) == 1

    support.wait_until(is_running, what=f"the engine core of {name}")
    return cores[0]


def opened(mesh: running.Mesh, choices: int = 16) -> Any:
    """Yield a stream of `tiny` that would take seconds, and its lines.

    It has run for a moment, but its tokens may be late.
    """
    body = {
        "model": "tiny",
        "prompt": PROMPTS[0],
        "max_tokens": LONG,
        "n": choices,
        "stream": True,
        "ignore_eos": True,
    }
    stream = mesh.http.stream("POST", "/v1/completions", json=body)
    lines = stream.__enter__().iter_lines()
    time.sleep(BEGUN_S)
    return stream, lines


@dataclass(frozen=True)
class Ended:
    """Return the last events of streams whose engine was killed, and their delay in seconds."""

    events: list[list[str]]
    after_s: float


@dataclass(frozen=True)
class Struck:
    """A mesh after one engine was killed, another one stopped, and a third could not be started."""

    killed: Ended
    stopped: httpx.Response
    noticed_after_s: float
    failed: httpx.Response


def strike(mesh: running.Mesh) -> Struck:
    """Kill `tiny`'s core under three streams, stop that of `vectors`, and call `spoilt`."""
    tiny, vectors = core(mesh, "tiny"), core(mesh, "vectors")
    streams = [opened(mesh) for _ in range(3)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        began_s = time.monotonic()
        vectors.send_signal(signal.SIGSTOP)
        stopped = pool.submit(
            _timed, mesh, "/v1/embeddings", {"model": "vectors", "input": PROMPTS[0]}
        )
        tiny.kill()
        killed = Ended(
            [list(filter(None, lines))[-2:] for _, lines in streams], time.monotonic() - began_s
        )
        failed = pool.submit(
            _timed, mesh, "/v1/completions", {"model": "spoilt", "prompt": PROMPTS[0]}
        )
        answer, noticed_after_s = stopped.result()
        return Struck(killed, answer, noticed_after_s, failed.result()[0])


def _timed(mesh: running.Mesh, path: str, body: dict[str, Any]) -> tuple[httpx.Response, float]:
    began_s = time.monotonic()
    answer = httpx.post(f"http://{mesh.listen}{path}", json=body, timeout=START_S)
    return answer, time.monotonic() - began_s
