from __future__ import annotations

import asyncio
from typing import Any

from meshserve.core.interfaces import llm_engine
from meshserve.llm import request_body

LEFT = {"type": "http.disconnect"}


def receiver(*messages: dict[str, Any]) -> llm_engine.Receive:
    """Return what gives these messages one after the other."""
    left = iter(messages)

    async def receive() -> Any:
        return next(left)

    return receive


def part(body: bytes, *, has_more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": has_more}


def test_a_body_in_parts_is_read_whole() -> None:
    whole = receiver(part(b"ab", has_more=True), part(b"c", has_more=False))
    assert asyncio.run(request_body.read_body(whole)) == b"abc"
    assert asyncio.run(request_body.read_body(receiver({"type": "http.request"}))) == b""


def test_a_body_whose_client_leaves_is_none() -> None:
    receive = receiver(part(b"ab", has_more=True), LEFT)
    assert asyncio.run(request_body.read_body(receive)) is None


def test_an_app_gets_the_other_body_and_then_the_news() -> None:
    async def messages() -> list[Any]:
        receive = request_body.receive_other(b"other", receiver(LEFT))
        return [await receive(), await receive()]

    assert asyncio.run(messages()) == [part(b"other", has_more=False), LEFT]
