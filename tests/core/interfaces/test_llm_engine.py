"""vLLM's engine and the fake implement the Protocol. mypy, which reads this file, compares them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshserve.core.interfaces import llm_engine
from meshserve.llm import vllm_engine
from meshserve.testing import fake_engine

ENGINES: tuple[Callable[[], llm_engine.Engine], ...] = (
    vllm_engine.VllmEngine,
    fake_engine.FakeEngine,
)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_that_was_never_started_has_no_counts(
    engine: Callable[[], llm_engine.Engine],
) -> None:
    counts = engine().counts()
    assert (counts.running, counts.waiting, counts.tokens) == (0, 0, 0)
