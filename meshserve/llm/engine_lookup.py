"""Which engine runs an LLM: vLLM, or one that another package brings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import cast

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.llm import vllm_engine

GROUP = "meshserve.engines"
"""Entry points of this group add engines: each names a class without arguments that is an `engine_ports.Engine`."""

BUILT_IN: Mapping[str, llm_engine.EngineMaker] = {"vllm": vllm_engine.VllmEngine}


def find(name: str) -> llm_engine.EngineMaker:
    """What makes engines of that name. Raises LoadFailed where there is none, or the package that has it can't be imported."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in points:
        raise errors.LoadFailed(
            f"engine {name!r} does not exist; there are: {', '.join([*BUILT_IN, *points])}"
        )
    try:
        return cast("llm_engine.EngineMaker", points[name].load())
    except (
        Exception
    ) as error:  # another package's code may raise anything; its name must be in the message
        raise errors.LoadFailed(
            f"engine {name!r} ({points[name].value}) can't be loaded: {error}"
        ) from error
