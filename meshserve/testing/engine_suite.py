"""The conformance suite of the plug-in contract in `core/interfaces/llm_engine.py`.

A package that brings an engine calls `check_engine` in its own tests; FakeEngine and vLLM's engine
pass it too. It needs no test framework: a broken rule is an AssertionError that says which one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from meshserve import errors, tasks
from meshserve.core.interfaces import llm_engine

Json: TypeAlias = dict[str, Any]
TOKENS = 8
LONG = 400  # So many that a request still runs when its client leaves.
PATIENCE_S = 60.0
SOON_S = 5.0
POLL_S = 0.01
IDLE = "running and waiting must be 0 when no request is left"


def check_engine(make_engine: llm_engine.EngineMaker, order: llm_engine.EngineOrder) -> None:
    """Raise AssertionError at the first rule of the plug-in contract that the engine breaks.

    `order` names a model that the engine can load and that completes text; its `run_dir` must be
    an empty folder. The engine is started once, gets requests through its app, and is killed.
    Other exceptions of the engine are not caught.
    """
    asyncio.run(_check_life(make_engine, order))


async def _check_life(make_engine: llm_engine.EngineMaker, order: llm_engine.EngineOrder) -> None:
    never_started = make_engine()
    assert isinstance(never_started, llm_engine.Engine), "an engine is a llm_engine.Engine"
    assert never_started.failure() == "", "an engine that was not started has no failure"
    await never_started.close()
    faults = type(never_started).argument_faults([order.spec.engine])
    assert faults == [[]], f"argument_faults must find nothing wrong with the order: {faults}"

    engine = make_engine()
    try:
        await engine.start(order)
        await engine.make_token()
        await check_started_engine(engine, order)
        await check_that_a_killed_engine_ends_its_streams(StartedEngine(engine, order))
    finally:
        await engine.close()
    left = os.listdir(order.run_dir)  # noqa: PTH208 - nothing else runs on this loop
    assert not left, f"close must remove the engine's files from run_dir; it left {left}"


async def check_started_engine(engine: llm_engine.Engine, order: llm_engine.EngineOrder) -> None:
    """Run all checks on an engine that was started with `order`, and leave it running.

    Raises AssertionError at the first rule that the engine breaks.
    """
    for check in CHECKS:
        await check(StartedEngine(engine, order))


class Exchange:
    """One request to an ASGI app, and its answer as it comes."""

    def __init__(self, app: llm_engine.Asgi, path: str, body: bytes | None) -> None:
        self.status = 0
        self.body = b""
        self._sent = [{"type": "http.request", "body": body or b"", "more_body": False}]
        self._has_left = asyncio.Event()
        self._changed = asyncio.Event()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET" if body is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"engine"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        answering = app(scope, self._receive, self._send)
        self.task = tasks.spawn(_awaiting(answering), f"answer {path}", is_awaited=True)

    async def _receive(self) -> MutableMapping[str, Any]:
        if self._sent:
            return self._sent.pop()
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")
        self._changed.set()

    async def first_part(self) -> None:
        """Return once a part of the body has come."""
        async with _within(PATIENCE_S, "an answer must begin"):
            # No await lies between this check and `clear`, so no part is missed.
            while not self.body and not self.task.done():
                self._changed.clear()
                await self._changed.wait()

    async def leave(self) -> None:
        """Close the connection, as a client does that no longer wants the answer."""
        self._has_left.set()
        async with _within(SOON_S, "a request must end when its client leaves"):
            # An app may end such a request by an exception: that breaks no rule.
            await asyncio.gather(self.task, return_exceptions=True)

    async def answer(self) -> Json:
        """Return the whole answer, which must be JSON."""
        async with _within(PATIENCE_S, "a request must be answered"):
            await self.task
        answer: Json = json.loads(self.body)
        return answer

    async def events(self, timeout_s: float = PATIENCE_S) -> list[str]:
        """Return the data of all server-sent events of the answer."""
        async with _within(timeout_s, "a stream must end"):
            await self.task
        lines = self.body.decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@contextlib.asynccontextmanager
async def _within(timeout_s: float, promise: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise AssertionError(f"{promise}, within {timeout_s:g} s") from None


# An app may return any awaitable, but a task takes coroutines alone.
async def _awaiting(work: Awaitable[None]) -> None:
    await work


@dataclass(frozen=True, slots=True)
class StartedEngine:
    """An engine that runs, and the order that it was started with."""

    engine: llm_engine.Engine
    order: llm_engine.EngineOrder

    def get(self, path: str) -> Exchange:
        """Send a GET."""
        return Exchange(self.engine.app, path, None)

    def complete(self, **changes: object) -> Exchange:
        """Send a completion of TOKENS greedy tokens, with changed fields."""
        request = {
            "model": self.order.spec.name,
            "prompt": "def wait(",
            "temperature": 0,
            "max_tokens": TOKENS,
            # Else the model may end before so many tokens, and `tokens` would not grow by them.
            "ignore_eos": True,
        }
        return self.post(json.dumps(request | changes).encode())

    def post(self, body: bytes) -> Exchange:
        """Send a completion with any body."""
        return Exchange(self.engine.app, "/v1/completions", body)

    async def wait_until(
        self, promise: str, is_true: Callable[[llm_engine.EngineCounts], bool]
    ) -> None:
        """Return once the counts fulfil `is_true`; after SOON_S raise AssertionError(`promise`)."""
        async with _within(SOON_S, promise):
            while not is_true(self.engine.counts()):  # noqa: ASYNC110 - only polling shows it
                await asyncio.sleep(POLL_S)


def _is_idle(counts: llm_engine.EngineCounts) -> bool:
    return counts.running == counts.waiting == 0


async def _text(exchange: Exchange) -> str:
    answer = await exchange.answer()
    assert exchange.status == HTTPStatus.OK, f"a completion must succeed; the answer was {answer}"
    text: str = answer["choices"][0]["text"]
    return text


async def check_that_all_names_are_served(started: StartedEngine) -> None:
    """The app lists the spec's name and the order's adapters, and serves each."""
    answer = await started.get("/v1/models").answer()
    names = {served["id"] for served in answer["data"]}
    ordered = {started.order.spec.name, *started.order.adapter_paths}
    assert names >= ordered, f"/v1/models must list the names {sorted(ordered)}; got {names}"
    for name in ordered:
        await _text(started.complete(model=name))


async def check_that_streams_have_the_same_text(started: StartedEngine) -> None:
    """A greedy completion has the same text streamed and whole; a stream ends with [DONE]."""
    whole = await _text(started.complete())
    *events, last = await started.complete(stream=True).events()
    assert last == "[DONE]", f"a stream must end with [DONE], not with {last}"
    choices = [choice for event in events for choice in json.loads(event).get("choices", ())]
    streamed = "".join(choice.get("text") or "" for choice in choices)
    assert streamed == whole != "", f"the streamed text {streamed!r} is not {whole!r}"


async def check_that_wrong_requests_are_refused(started: StartedEngine) -> None:
    """Wrong requests are 4xx errors in OpenAI's shape."""
    exchanges = {
        404: started.complete(model="no such model"),
        400: started.complete(max_tokens=-1),
    }
    for status, exchange in [*exchanges.items(), (400, started.post(b"{"))]:
        answer = await exchange.answer()
        assert exchange.status == status, f"expected {status}, got {exchange.status}: {answer}"
        assert answer.get("error", {}).get("message"), f"not an error in OpenAI's shape: {answer}"


async def check_that_counts_follow_requests(started: StartedEngine) -> None:
    """`tokens` and `ttft` grow with requests; `progress` changes while one runs."""
    before = started.engine.counts()
    exchange = started.complete()
    await started.wait_until(
        "progress must change while a request runs",
        lambda counts: counts.progress != before.progress,
    )
    await _text(exchange)
    await started.wait_until(
        "tokens must grow by those of a request",
        lambda counts: counts.tokens >= before.tokens + TOKENS,
    )
    await started.wait_until(IDLE, _is_idle)
    after = started.engine.counts()
    assert after.ttft[-1][0] == math.inf, "the last bound of ttft must be infinite"
    # Each bound counts all shorter times, so the last one counts every request.
    earlier = before.ttft[-1][1] if before.ttft else 0
    assert after.ttft[-1][1] > earlier, "ttft must count the request"
    assert 0.0 <= after.kv_used <= 1.0, f"kv_used is a share, not {after.kv_used}"


async def check_that_a_client_that_leaves_ends_its_request(started: StartedEngine) -> None:
    """Generation stops when the client disconnects."""
    before = started.engine.counts().tokens
    exchange = started.complete(stream=True, max_tokens=LONG)
    await exchange.first_part()
    await exchange.leave()
    await started.wait_until(IDLE, _is_idle)
    generated = started.engine.counts().tokens - before
    assert generated < LONG, f"all {generated} tokens were made for a client that had gone"


async def check_that_changes_of_adapters_are_declared(started: StartedEngine) -> None:
    """An engine that declares `can_change_adapters` serves one that is added, until it goes."""
    paths = list(started.order.adapter_paths.values())
    if not paths or not started.engine.capabilities.can_change_adapters:
        return
    await started.engine.add_adapter("added", paths[0])
    await _text(started.complete(model="added"))
    await started.engine.remove_adapter("added")
    exchange = started.complete(model="added")
    await exchange.answer()
    assert exchange.status == HTTPStatus.NOT_FOUND, "a removed adapter must not be served"


async def check_that_sleep_is_declared(started: StartedEngine) -> None:
    """An engine that declares `can_sleep` serves again after sleep and wake."""
    if started.engine.capabilities.can_sleep:
        await started.engine.sleep(1)
        await started.engine.wake()
        await started.engine.make_token()
    assert await _text(started.complete())


async def check_that_a_killed_engine_ends_its_streams(started: StartedEngine) -> None:
    """After `kill` streams end with an error and `failure` has a reason. Ends the engine."""
    exchange = started.complete(stream=True, max_tokens=LONG)
    await exchange.first_part()
    started.engine.kill()
    # Engines may send [DONE] behind the error.
    events = [event for event in await exchange.events(SOON_S) if event != "[DONE]"]
    assert "error" in json.loads(events[-1]), f"the stream must end with an error: {events[-1]}"
    async with _within(SOON_S, "failure must say why once the engine is killed"):
        while not started.engine.failure():  # noqa: ASYNC110 - only polling shows it
            await asyncio.sleep(POLL_S)
    try:
        await started.engine.make_token()
    except errors.MeshError:
        return
    raise AssertionError("make_token must raise a MeshError once the engine has failed")


CHECKS: tuple[Callable[[StartedEngine], Awaitable[None]], ...] = (
    check_that_all_names_are_served,
    check_that_streams_have_the_same_text,
    check_that_wrong_requests_are_refused,
    check_that_counts_follow_requests,
    check_that_a_client_that_leaves_ends_its_request,
    check_that_changes_of_adapters_are_declared,
    check_that_sleep_is_declared,
)
"""The rules for an engine that runs. `check_engine` runs them in this order, then kills it."""
