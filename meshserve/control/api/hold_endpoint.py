"""The endpoint that gateways ask whether a held request may go on.

The gateway keeps the request's body; its question waits here until a replica of the LLM is ready,
or a worker of the pool.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from typing import assert_never
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from meshserve import errors, tasks
from meshserve.control.api import openai_models, rest_routes
from meshserve.core.values import commands, events, llm_events
from meshserve.protocol import llm_errors, paths

REASON_MAX = 1000
"""Characters of a reason in a header."""

# More digits are no size of a body, and Python's `int` raises beyond 4,300 of them.
SIZE_DIGITS_MAX = 15
CLIENT_CLOSED_REQUEST = 499
"""Nginx's status for a client that has disconnected and so never sees it."""

ANTHROPIC = "anthropic"
"""The value of the query's `api` for requests of Anthropic's API."""

SMALL = "small"
"""The value of the query's `api` for requests of models in pools."""

NOT_READY = openai_models.ErrorKind("server_error", None, "service_unavailable")


class HoldEndpoint:
    """Posts an event for every held request, and answers it when the mesh decides."""

    def __init__(self, post: Callable[[events.Event], None]) -> None:
        self._post = post
        self._numbers = itertools.count(1)
        self._waiting: dict[str, asyncio.Future[Response]] = {}
        # The query's `api` by ticket: it decides the form of a refusal.
        self._apis: dict[str, str] = {}

    def perform(self, command: commands.HeldCommand) -> None:
        """Answer the request with the command's ticket, unless its client has left."""
        waiting = self._waiting.get(command.ticket)
        if waiting is None or waiting.done():
            return
        match command:
            case commands.Admit():
                waiting.set_result(Response(media_type="application/json"))
            case commands.TurnAway():
                waiting.set_result(_turned_away(command, self._apis[command.ticket]))
            case _:
                assert_never(command)

    async def wait(self, request: Request) -> Response:
        """Return 200 once the request may go on, or 503 with Retry-After if it may not.

        Raises InvalidRequest for a missing model or a malformed size.
        """
        name, size_bytes = _name_and_size(request)
        await rest_routes.read_body(request)
        ticket = str(next(self._numbers))
        api = self._apis[ticket] = request.query_params.get("api", "")
        answer = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        gone = tasks.spawn(_wait_until_gone(request), f"held request {ticket}")
        self._post(llm_events.RequestHeld(ticket, name, size_bytes, is_small=api == SMALL))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            del self._waiting[ticket]
            del self._apis[ticket]
            # Without this event the mesh would count the request and its bytes for ever.
            if not answer.done():
                self._post(llm_events.HeldRequestLeft(ticket))
        return answer.result() if answer.done() else Response(status_code=CLIENT_CLOSED_REQUEST)


def _name_and_size(request: Request) -> tuple[str, int]:
    name = request.query_params.get("model", "")
    size = request.query_params.get("bytes", "0")
    if not name or not size.isdecimal() or len(size) > SIZE_DIGITS_MAX:
        raise errors.InvalidRequest(f"{paths.HOLD} needs ?model=NAME&bytes=NUMBER")
    return name, int(size)


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _turned_away(command: commands.TurnAway, api: str) -> Response:
    if api == SMALL:
        status = 404 if command.is_unknown else 503
        answer = rest_routes.json_response({"error": command.reason}, status)
        # For gRPC calls, because scripts of Envoy read headers more easily than JSON.
        answer.headers[paths.REASON_HEADER] = quote(command.reason[:REASON_MAX])
        if command.is_unknown:
            return answer
    elif api == ANTHROPIC:
        answer = rest_routes.json_response(llm_errors.anthropic(command.reason, 503), 503)
    else:
        answer = openai_models.refusal(503, command.reason, NOT_READY)
    answer.headers["retry-after"] = str(math.ceil(command.retry_after_s))
    return answer
