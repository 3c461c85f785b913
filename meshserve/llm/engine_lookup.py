"""Which engine runs an LLM: vLLM, or one that another package brings."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.llm import vllm_engine

GROUP = "meshserve.engines"
"""Entry points of this group add engines: each names a subclass of `llm_engine.Engine`."""

BUILT_IN: Mapping[str, type[llm_engine.Engine]] = {"vllm": vllm_engine.VllmEngine}


def find(name: str) -> type[llm_engine.Engine]:
    """Return the class of the engines of that name.

    Raises LoadFailed if no package brings it, or if its package can't be imported.
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
    except Exception as error:  # Another package's code may raise anything; its name must be said.
        raise errors.LoadFailed(
            f"engine {name!r} ({points[name].value}) can't be loaded: {error}"
        ) from error
    if not (isinstance(engine, type) and issubclass(engine, llm_engine.Engine)):
        raise errors.LoadFailed(
            f"engine {name!r} ({points[name].value}) is not a llm_engine.Engine"
        )
    return engine


def installed(name: str) -> type[llm_engine.Engine] | None:
    """Return the class of the engines of that name, None if this machine does not have it.

    Other machines of the cluster may have it.
    """
    try:
        return find(name)
    except errors.LoadFailed:
        return None
