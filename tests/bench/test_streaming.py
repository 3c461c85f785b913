from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench import streaming
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server
from meshserve.protocol import asgi_server, sockets
from meshserve.testing import fake_engine

EVENTS = (
    {"choices": [{"text": "a"}]},
    {"choices": [{"text": "b"}]},
    {"choices": [], "usage": {"completion_tokens": 2}},
)


def response(*events: Any, chunk_bytes: int = 20) -> Any:
    """Events as they come over HTTP/1.1, cut into chunks anywhere."""
    body = (
        b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)
        + b"data: [DONE]\n\n"
    )
    parts = [body[at : at + chunk_bytes] for at in range(0, len(body), chunk_bytes)]
    return b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n" + b"".join(
        b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""]
    )


def test_a_stream_is_read_whatever_its_chunks() -> None:
    assert {
        streaming.answer(1.5, response(*EVENTS, chunk_bytes=size)) for size in (7, 20, 1000)
    } == {streaming.Answer(1.5, "ab", 2)}


@pytest.mark.parametrize("events", [EVENTS[:2], (*EVENTS[:2], {"error": {"message": "dead"}})])
def test_a_stream_without_its_end_is_no_answer(events: Any) -> None:
    with pytest.raises(streaming.LoadFailed):
        streaming.answer(1.0, response(*events))


def test_speed_and_percentiles_are_of_all_answers() -> None:
    outcome = streaming.Outcome(
        tuple(streaming.Answer(float(ms), "", 10) for ms in range(1, 101)), 2.0
    )
    assert (outcome.tokens_per_s, outcome.ttft_ms(50), outcome.ttft_ms(95)) == (500.0, 50.5, 95.05)


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Any]:
    server = llm_server.LlmServer(
        model.ServerAddress("tiny/0", str(tmp_path)),
        llm_engine.EngineOrder(llm_spec.LlmSpec("tiny", "/m"), "/m"),
        fake_engine.FakeEngine,
    )
    await server.start()
    app: Any = server._app
    served = await asgi_server.serve(app, [sockets.tcp_socket("127.0.0.1")])
    yield f"127.0.0.1:{served.port}"
    await served.stop()
    await server.stop()


@pytest.mark.edge
async def test_answers_that_are_no_streams_of_tokens_end_the_load(tmp_path: Path) -> None:
    async with serving(tmp_path) as endpoint:
        with pytest.raises(streaming.LoadFailed, match="no token came"):
            await asyncio.to_thread(streaming.run, endpoint, [b'{"model": "nobody"}'], 1)


@pytest.mark.edge
async def test_as_many_streams_run_at_a_time_as_shall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "answer", lambda ttft_ms, came: (ttft_ms, came))
    async with serving(tmp_path) as endpoint:
        asked = [
            json.dumps(
                {"model": "tiny", "prompt": "y" * size, "max_tokens": 20, "stream": True}
            ).encode()
            for size in range(1, 13)
        ]
        outcome = await asyncio.to_thread(streaming.run, endpoint, asked, 4)
    assert len(outcome.answers) == 12
    answers: Any = outcome.answers
    assert all(came.count(b"data: ") == 21 and ttft_ms > 0 for ttft_ms, came in answers)
    assert len({came for _, came in answers}) > 1
    assert outcome.elapsed_s < 12 * 20 * fake_engine.STEP_S
