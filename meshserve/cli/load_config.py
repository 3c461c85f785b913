"""A configuration read as `up` and `config check` read it: with what engines themselves say of their arguments."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

from meshserve import config
from meshserve.llm import validate_args

VLLM = "vllm"


def load(file: str | os.PathLike[str]) -> config.Config:
    """The configuration in a file. Raises ConfigInvalid with all that is wrong."""
    return config.load(file, engine_faults)


def can_judge() -> bool:
    """Whether vLLM is here to say what it takes."""
    return importlib.util.find_spec(VLLM) is not None


def engine_faults(read: config.Config) -> Iterator[config.Diagnostic]:
    """What vLLM's own parser does not take. Nothing where vLLM is not installed: the machines that run it may have it."""
    places = {each.name: place for place, each in enumerate(read.llms) if each.runtime == VLLM}
    for name, found in validate_args.check_all(
        {name: read.llms[place].engine for name, place in places.items()}
    ).items():
        yield from (
            config.Diagnostic(("llms", places[name], "engine", key), message)
            for key, message in found
        )
