"""Measure what the way through the mesh costs an LLM, beside bare `vllm serve`.

Both servers have the same arguments, run at the same time, and get load in turn, round after round:
streamed completions, one at a time and then many. Every answer must be the same from both.

Two starts of one server differ by more than the difference that is measured, so both are started
several times. A pause separates their loads, because an engine spins for a second after its last
token. Answers differ in length, so that requests come at any moment of an engine's step. The cost
at rest is reported by itself, because it slows both. On a CPU both leave one core to processes that
are no engine: what passes tokens on would otherwise wait for the engine, which spins on every core
it has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import httpx
from rich.console import Console

from bench import free_ports, llm_figures, meshes, program, results, routing, served, streaming
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.llm import vllm_engine, vllm_env

TINY_LLM = Path(__file__).parents[1] / "tests" / "tiny_llm.py"
START_S = 240.0
REST_S = 5.0
SPIN_S = 1.3
FREE_CORES = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}
ENGINE = {"max_model_len": 512, "dtype": "float32", "max_num_seqs": 16}
KV_BYTES = 256 << 20
LENGTH_STEP = 11
PROMPTS = (
    "def wait(",
    "import sys",
    "class Signature:",
    "for model in",
    "return self",
    "if not",
    "raise ValueError(",
    "while True:",
)


@dataclass(frozen=True)
class System:
    """A server under load: its processes and its address."""

    served: served.Served
    endpoint: str

    def is_answering(self) -> bool:
        """Tell whether the server makes a token."""
        with contextlib.suppress(httpx.HTTPError):
            url, kind = (
                f"http://{self.endpoint}{streaming.PATH}",
                {"content-type": "application/json"},
            )
            return (
                httpx.post(
                    url, content=body(PROMPTS[0], 1), headers=kind, timeout=START_S
                ).status_code
                == 200
            )
        return False


def body(prompt: str, tokens: int) -> bytes:
    asked = {
        "model": "tiny",
        "prompt": prompt,
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    return json.dumps(asked | {"stream": True, "stream_options": {"include_usage": True}}).encode()


def bodies(count: int, tokens: int) -> list[bytes]:
    """Return prompts that differ, and ask for answers of half to one and a half times the tokens.

    So no two requests at a time are the same.
    """
    lengths = (tokens // 2 + number * LENGTH_STEP % (tokens + 1) for number in range(count))
    return [
        body(f"{PROMPTS[number % len(PROMPTS)]} {number}", length)
        for number, length in enumerate(lengths)
    ]


def bare_words(model: Path, endpoint: str) -> list[str]:
    """Return the command line of a server with the mesh's arguments."""
    host, _, port = endpoint.rpartition(":")
    arguments = {
        **ENGINE,
        **vllm_engine.CPU_DEFAULTS,
        "kv_cache_memory_bytes": KV_BYTES,
        "served_model_name": "tiny",
        "host": host,
        "port": port,
    }
    flags = ((f"--{name.replace('_', '-')}", value) for name, value in arguments.items())
    return [
        "serve",
        str(model),
        *(flag if value is True else f"{flag}={value}" for flag, value in flags),
    ]


def bare_environment(model: Path, folder: Path) -> dict[str, str]:
    """Return the variables that a replica sets for its engine too."""
    order = llm_engine.EngineOrder(
        llm_spec.LlmSpec("tiny", str(model), device="cpu"), str(model), {}, "mp", str(folder)
    )
    variables = vllm_env.defaults(order, sorted(os.sched_getaffinity(0)), "") | vllm_env.enforced(
        order
    )
    return {name: value for name, value in variables.items() if value} | named_vllm(folder)


def named_vllm(folder: Path) -> dict[str, str]:
    """Return a path where the package is called `vllm`, whose version its command asks for."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        metadata.version("vllm")
        return {}
    about = folder / "named" / "vllm.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {metadata.version('vllm-cpu')}+cpu\n"
    )
    return {"PYTHONPATH": str(about.parent)}


def write_model(folder: Path) -> Path:
    """Write a Llama of the tests, with a token as slow as a real model's on a GPU.

    Where a step takes only a millisecond, vLLM's core starves its own sending thread, and tokens
    arrive all at once, from both.
    """
    folder.mkdir()
    tiny_llm = runpy.run_path(str(TINY_LLM))
    tiny_llm["llama"](folder, **tiny_llm["WIDE"])
    return folder


@contextlib.contextmanager
def through_mesh(folder: Path, model: Path) -> Iterator[System]:
    entry = {
        "name": "tiny",
        "uri": str(model),
        "device": "cpu",
        "cpu_kv_cache": KV_BYTES,
        "engine": ENGINE,
    }
    with meshes.up(folder, meshes.pool(1, "512MiB"), llms=[entry]) as mesh:
        yield System(mesh.system, mesh.endpoint)


@contextlib.contextmanager
def bare(folder: Path, model: Path) -> Iterator[System]:
    endpoint, vllm = f"127.0.0.1:{free_ports.free_port()}", Path(sys.executable).with_name("vllm")
    with served.serving(
        [vllm, *bare_words(model, endpoint)], folder / "bare.log", **bare_environment(model, folder)
    ) as process:
        yield System(process, endpoint)


STARTS: Mapping[str, Callable[[Path, Path], contextlib.AbstractContextManager[System]]] = {
    llm_figures.MESH: through_mesh,
    llm_figures.BARE: bare,
}


def measure(
    system: System, asked: list[bytes], streams: int
) -> tuple[llm_figures.Figures, list[str]]:
    """Run one load; return its figures and the answers."""
    time.sleep(SPIN_S)
    before = system.served.cpu_s()
    outcome = streaming.run(system.endpoint, asked, streams)
    spent_s = served.spent_s(before, system.served.cpu_s())
    tokens = sum(answer.tokens for answer in outcome.answers)
    figures = llm_figures.Figures(
        outcome.tokens_per_s, outcome.ttft_ms(50), outcome.ttft_ms(95), spent_s / tokens * 1e6
    )
    return figures, [answer.text for answer in outcome.answers]


def one_round(
    systems: Mapping[str, System], order: Sequence[str], requests: int, tokens: int
) -> llm_figures.Round:
    """Run each load on each system, in this order. Raises LoadFailed where their answers differ."""
    measured: dict[int, dict[str, llm_figures.Figures]] = {}
    for streams in llm_figures.STREAMS:
        asked = bodies(requests if streams == 1 else 8 * requests, tokens)
        taken = {name: measure(systems[name], asked, streams) for name in order}
        if taken[llm_figures.MESH][1] != taken[llm_figures.BARE][1]:
            raise streaming.LoadFailed("the mesh and the bare server gave different answers")
        measured[streams] = {name: taken[name][0] for name in (llm_figures.MESH, llm_figures.BARE)}
    return measured


def rest(system: System) -> dict[str, float]:
    """Return the share of one core that each process takes at rest, by its title."""
    time.sleep(REST_S)  # engines spin for a while after their last request
    before = system.served.cpu_s()
    time.sleep(REST_S)
    shares = routing.cpu_us_by_process(before, system.served.cpu_s(), 1)
    return {title: round(us / REST_S / 1e6, 4) for title, us in shares.items()}


def run(console: Console, args: argparse.Namespace, folder: Path) -> results.Results:
    """Run all rounds of all starts, and measure each system at rest. Raises LoadFailed."""
    args.starts, args.rounds = (
        args.starts or (1 if args.quick else 3),
        args.rounds or (2 if args.quick else 8),
    )
    os.environ.update(FREE_CORES)
    model, rounds, at_rest = write_model(folder / "model"), [], {}
    try:
        for number in range(args.starts):
            console.print(f"start {number + 1} of {args.starts}")
            with both(_made(folder / str(number)), model, args.tokens) as systems:
                rounds += all_rounds(console, args, systems)
                at_rest = {name: rest(system) for name, system in systems.items()}
    except streaming.LoadFailed as failure:
        raise program.WrongAnswer(str(failure)) from failure
    return llm_figures.summarise(args, rounds, at_rest)


@contextlib.contextmanager
def both(folder: Path, model: Path, tokens: int) -> Iterator[Mapping[str, System]]:
    """Run both systems, warm."""
    with contextlib.ExitStack() as stack:
        systems = {
            name: stack.enter_context(start(_made(folder / name), model))
            for name, start in STARTS.items()
        }
        for system in systems.values():
            system.served.wait_until(system.is_answering, START_S)
            streaming.run(
                system.endpoint,
                bodies(2 * max(llm_figures.STREAMS), tokens),
                max(llm_figures.STREAMS),
            )
        yield systems


def all_rounds(
    console: Console, args: argparse.Namespace, systems: Mapping[str, System]
) -> list[llm_figures.Round]:
    """Run the rounds of one start and show each; the systems take turns in going first."""
    rounds = []
    for number in range(args.rounds):
        rounds.append(
            one_round(
                systems,
                (llm_figures.MESH, llm_figures.BARE)
                if number % 2
                else (llm_figures.BARE, llm_figures.MESH),
                args.requests,
                args.tokens,
            )
        )
        program.show(
            console,
            results.Results(
                1,
                {},
                tables=(llm_figures.table(f"round {number + 1} of {args.rounds}", rounds[-1]),),
            ),
        )
    return rounds


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> int:
    parser = program.parser(__doc__)
    parser.add_argument("--rounds", type=int, help="of each start; default: 8, quick 2")
    parser.add_argument("--starts", type=int, help="of both systems; default: 3, quick 1")
    parser.add_argument(
        "--requests",
        type=int,
        default=12,
        help="of the load of one stream; eight times as many of that of many",
    )
    parser.add_argument("--tokens", type=int, default=32, help="of each answer, more or less")
    return program.main("llm_overhead", parser, run)


if __name__ == "__main__":
    sys.exit(main())
