from __future__ import annotations

from pathlib import Path

import pytest

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.testing import check_engine, engine_suite, fake_engine

SPEC = llm_spec.LlmSpec(
    "tiny", "/m", aliases=("alias",), adapters=(llm_spec.Adapter("lora", "/lora"),), device="cpu"
)


@pytest.fixture
def order(tmp_path: Path) -> llm_engine.EngineOrder:
    return llm_engine.EngineOrder(SPEC, "/m", {"lora": "/lora"}, run_dir=str(tmp_path))


@pytest.mark.parametrize("can_sleep", [False, True])
def test_the_fake_engine_keeps_the_contract(order: llm_engine.EngineOrder, can_sleep: bool) -> None:
    check_engine(lambda: fake_engine.FakeEngine(can_sleep=can_sleep), order)


class Unlisted(fake_engine.FakeEngine):
    def _names(self) -> tuple[str, ...]:
        return ("tiny",)


class Deaf(fake_engine.FakeEngine):
    """Keeps on generating for clients that have left."""

    async def _answer(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        await self._respond(scope["path"], (await receive())["body"], send)


class Immortal(fake_engine.FakeEngine):
    def kill(self) -> None:
        pass


class Littering(fake_engine.FakeEngine):
    async def start(self, order: llm_engine.EngineOrder) -> None:
        await super().start(order)
        Path(order.run_dir, "left").touch()  # noqa: ASYNC240 - a test's file


class Still(fake_engine.FakeEngine):
    def counts(self) -> llm_engine.EngineCounts:
        return super().counts()._replace(progress=0)


class Insomniac(fake_engine.FakeEngine):
    """Declares that it can sleep, and can't."""

    @property
    def capabilities(self) -> llm_engine.EngineCapabilities:
        return llm_engine.EngineCapabilities(can_sleep=True, has_adapters=True)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (Unlisted, "must list the names"),
        (Deaf, "must end when its client leaves"),
        (Immortal, "a stream must end"),
        (Littering, "close must remove the engine's files"),
        (Still, "progress must change"),
    ],
)
def test_an_engine_that_breaks_a_rule_hears_which(
    order: llm_engine.EngineOrder,
    engine: type[llm_engine.Engine],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_suite, "SOON_S", 0.2)
    with pytest.raises(AssertionError, match=words):
        check_engine(engine, order)


def test_an_engine_that_declares_what_it_can_not_do_is_found_out(
    order: llm_engine.EngineOrder,
) -> None:
    with pytest.raises(errors.Unsupported, match="can't sleep"):
        check_engine(Insomniac, order)
