"""Requests for LLMs that no engine is ready for. Their bodies stay at the gateways: what waits here is only whether they may go on."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable

from meshserve import errors, tasks
from meshserve.control.api import http_messages, openai_models
from meshserve.core.values import commands, events
from meshserve.protocol import paths

SIZE_DIGITS_MAX = 15


class HoldEndpoint:
    """Every request that comes in is told to the mesh, and is answered when the mesh says so, or when its client leaves."""

    def __init__(self, post: Callable[[events.Event], None]) -> None:
        self._post = post
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[http_messages.HttpAnswer]] = {}

    def perform(self, command: commands.HeldCommand) -> None:
        """Answer one that waits; nothing where it has gone."""
        waiting = self._waiting.get(command.ticket)
        if waiting is not None and not waiting.done():
            waiting.set_result(
                _turned_away(command)
                if isinstance(command, commands.TurnAway)
                else http_messages.HttpAnswer()
            )

    async def wait(
        self, request: http_messages.HttpRequest, receive: http_messages.Receive
    ) -> http_messages.HttpAnswer | None:
        """200 once the request may go on, 503 where it may not; nothing where its client has gone. Raises InvalidRequest."""
        name, size_bytes = _asked(request)
        ticket = str(next(self._numbers))
        answer = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        gone = tasks.spawn(_wait_until_gone(receive), "wait until gone")
        self._post(events.RequestHeld(ticket, name, size_bytes))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            del self._waiting[ticket]
            if not answer.done():
                self._post(events.HeldRequestLeft(ticket))
        return answer.result() if answer.done() else None


def _asked(request: http_messages.HttpRequest) -> tuple[str, int]:
    name, size = request.query.get("model", ""), request.query.get("bytes", "0")
    if not name or not size.isdecimal() or len(size) > SIZE_DIGITS_MAX:
        raise errors.InvalidRequest(f"{paths.HOLD} needs ?model=NAME&bytes=NUMBER")
    return name, int(size)


async def _wait_until_gone(receive: http_messages.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _turned_away(command: commands.TurnAway) -> http_messages.HttpAnswer:
    refused = openai_models.refusal(
        503, command.reason, openai_models.Kind("server_error", None, "service_unavailable")
    )
    return http_messages.HttpAnswer(
        refused.body,
        refused.status,
        (*refused.headers, (b"retry-after", b"%d" % math.ceil(command.retry_after_s))),
    )
