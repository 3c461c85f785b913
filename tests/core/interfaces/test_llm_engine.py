from __future__ import annotations

import asyncio
import inspect

import pytest

from meshserve.core.interfaces import llm_engine
from meshserve.llm import vllm_engine
from meshserve.testing import fake_engine

ENGINES = [vllm_engine.VllmEngine, fake_engine.FakeEngine]
NAMES = [
    name
    for name, promised in vars(llm_engine.Engine).items()
    if inspect.isfunction(promised) and not name.startswith("_")
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_an_engine_takes_what_its_port_takes(engine, name):
    promised, found = getattr(llm_engine.Engine, name), getattr(engine, name)
    assert list(inspect.signature(found).parameters) == list(inspect.signature(promised).parameters)
    assert asyncio.iscoroutinefunction(found) == asyncio.iscoroutinefunction(promised)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_an_app(engine):
    assert isinstance(engine.app, property)
