from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.interfaces import llm_engine


class Bare(llm_engine.Engine):
    """An engine that declares nothing."""

    @property
    def app(self) -> llm_engine.Asgi:
        raise NotImplementedError

    async def start(self, order: llm_engine.EngineOrder) -> None:
        pass

    async def make_token(self) -> None:
        pass

    def failure(self) -> str:
        return ""

    def counts(self) -> llm_engine.EngineCounts:
        return llm_engine.EngineCounts()

    def kill(self) -> None:
        pass

    async def close(self) -> None:
        pass


async def test_an_engine_is_not_asked_for_what_it_does_not_declare() -> None:
    assert Bare().capabilities == llm_engine.EngineCapabilities()
    assert Bare.install_hint() == ""
    assert Bare.argument_faults([{"any": 1}, {}]) == [[], []]
    for call in (Bare().sleep(1), Bare().wake()):
        with pytest.raises(errors.Unsupported, match="can't sleep"):
            await call
