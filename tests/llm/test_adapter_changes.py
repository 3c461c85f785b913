from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.llm import adapter_changes, model_names
from meshserve.testing import fake_engine

SQL, TONE = llm_spec.Adapter("sql", "/sql"), llm_spec.Adapter("tone", "/tone")
SQL_2 = llm_spec.Adapter("sql", "/sql", llm_spec.Weights("2"))
SPOILT = llm_spec.Adapter("bad", "/spoilt")


@pytest.fixture
async def engine() -> fake_engine.FakeEngine:
    started = fake_engine.FakeEngine()
    spec = llm_spec.LlmSpec("tiny", "/m", adapters=(SQL,))
    await started.start(llm_engine.EngineOrder(spec, "/m", {"sql": "/sql"}))
    started.calls.clear()
    return started


@pytest.fixture
def names(engine: fake_engine.FakeEngine) -> model_names.RenamedModels:
    return model_names.RenamedModels(engine.app, "tiny")


@pytest.fixture
def changes(
    engine: fake_engine.FakeEngine, names: model_names.RenamedModels
) -> adapter_changes.AdapterChanges:
    async def fetch(adapter: llm_spec.Adapter) -> str:
        return adapter.uri

    return adapter_changes.AdapterChanges(engine, names, fetch)


async def test_new_ones_come_before_old_ones_go(
    changes: adapter_changes.AdapterChanges,
    engine: fake_engine.FakeEngine,
    names: model_names.RenamedModels,
) -> None:
    await changes.change([SQL], [SQL])
    assert engine.calls == []
    await changes.change([SQL], [TONE])
    assert (engine.calls, names.adapters) == (["add tone", "remove sql"], {"tone": "tone"})


async def test_other_weights_get_a_name_that_the_engine_has_never_had(
    changes: adapter_changes.AdapterChanges,
    engine: fake_engine.FakeEngine,
    names: model_names.RenamedModels,
) -> None:
    await changes.change([SQL], [SQL_2])
    assert (engine.calls, names.adapters) == (["add sql@2", "remove sql"], {"sql": "sql@2"})
    await changes.change([SQL_2], [])
    await changes.change([], [SQL])
    assert names.adapters == {"sql": "sql@3"}


async def test_after_a_failure_all_are_as_before(
    changes: adapter_changes.AdapterChanges,
    engine: fake_engine.FakeEngine,
    names: model_names.RenamedModels,
) -> None:
    with pytest.raises(errors.LoadFailed, match="is no adapter"):
        await changes.change([SQL], [TONE, SPOILT])
    assert (engine.calls, names.adapters) == (["add tone", "add bad", "remove tone"], {})


async def test_an_engine_that_takes_no_others_is_not_asked(
    names: model_names.RenamedModels,
) -> None:
    class Fixed(fake_engine.FakeEngine):
        capabilities = llm_engine.EngineCapabilities(has_adapters=True)

    async def fetch(_: llm_spec.Adapter) -> str:
        raise AssertionError

    with pytest.raises(errors.Unsupported):
        await adapter_changes.AdapterChanges(Fixed(), names, fetch).change([], [SQL])
