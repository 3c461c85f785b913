"""Engine arguments checked when a configuration is read, in a process of its own: whoever reads one need not carry vLLM afterwards."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence

from meshserve.core.values import llm_spec
from meshserve.llm import vllm_args

PROGRAM = "from meshserve.llm import vllm_engine; vllm_engine.judge()"
PATIENCE_S = 120.0

logger = logging.getLogger(__name__)


def check(engine_arguments: Mapping[str, object], spec: llm_spec.LlmSpec) -> list[vllm_args.Fault]:
    """What vLLM's own parser says against these arguments of this LLM: keys, and what is wrong with each."""
    return check_all({spec.name: engine_arguments})[spec.name]


def check_all(engines: Mapping[str, Mapping[str, object]]) -> dict[str, list[vllm_args.Fault]]:
    """The same for several LLMs by their names, with vLLM imported once. Where vLLM is not, nothing is said: the nodes may have it."""
    found: dict[str, list[vllm_args.Fault]] = {name: [] for name in engines}
    asked = {name: dict(engine) for name, engine in engines.items() if engine}
    if asked and importlib.util.find_spec("vllm") is not None:
        for name, said in zip(asked, _judged(list(asked.values())), strict=True):
            found[name] = [(key, message) for key, message in said]
    return found


def _judged(engines: Sequence[Mapping[str, object]]) -> list[list[list[str]]]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(engines),
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_S,
        )
    except subprocess.SubprocessError as error:
        logger.warning(
            "engine arguments could not be checked: %s", getattr(error, "stderr", None) or error
        )
        return [[] for _ in engines]
    judged: list[list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return judged
