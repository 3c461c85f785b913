"""Find the engine of an LLM by name: vLLM, or an engine of another package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.llm import vllm_engine

GROUP = "meshserve.engines"
"""The group of entry points that add engines; each refers to a subclass of `llm_engine.Engine`."""

DEFAULT = "vllm"
BUILT_IN: Mapping[str, type[llm_engine.Engine]] = {DEFAULT: vllm_engine.VllmEngine}


def find(name: str) -> type[llm_engine.Engine]:
    """Return the class of the engine of this name.

    Raises LoadFailed if no package has it, or if its package can't be imported.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in points:
        raise errors.LoadFailed(
            f"engine {name!r} does not exist; there are: {', '.join([*BUILT_IN, *points])}"
        )
    try:
        engine = points[name].load()
    except Exception as error:  # Another package's code may raise anything; the error must name it.
        raise errors.LoadFailed(
            f"engine {name!r} ({points[name].value}) can't be loaded: {error}"
        ) from error
    if not (isinstance(engine, type) and issubclass(engine, llm_engine.Engine)):
        raise errors.LoadFailed(
            f"engine {name!r} ({points[name].value}) is not a llm_engine.Engine"
        )
    return engine


def installed(name: str) -> type[llm_engine.Engine] | None:
    """Return the class of the engine of this name, None if this machine does not have it.

    Other machines of the cluster may have it.
    """
    try:
        return find(name)
    except errors.LoadFailed:
        return None
