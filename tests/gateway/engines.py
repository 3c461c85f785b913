"""Servers behind the gateway for LLMs in tests: replicas, and the controller's hold endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from meshserve import tasks
from meshserve.core.values import model, snapshots
from tests.gateway import conftest, echo
from tests.gateway.conftest import running

ERROR = (
    b'{"error": {"message": "full", "type": "server_error", "param": null, '
    b'"code": "service_unavailable"}}'
)


ALIASES = ("org/tiny 1", "modèle-日本")


@dataclass
class StreamingReplica(echo.Echo):
    """A replica. With `x-say: stream` it sends every word put into `words` as an event.

    An empty word ends the stream.
    """

    words: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def say(self, what: str, picture: dict[str, Any], receive: Any, send: Any) -> None:
        if what != "stream":
            await super().say(what, picture, receive, send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        while word := await self.words.get():
            await send(
                {
                    "type": "http.response.body",
                    "body": f"data: {word}\n\n".encode(),
                    "more_body": True,
                }
            )
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


@dataclass
class HoldServer(echo.Echo):
    """The controller: questions of the script wait in `waiting` for their answer."""

    asked: list[tuple[str, str]] = field(default_factory=list)
    waiting: list[asyncio.Future[Any]] = field(default_factory=list)
    left: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/mesh/internal/held":
            await self.hold(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def hold(self, scope: Any, receive: Any, send: Any) -> None:
        await echo.read(receive)
        self.asked.append((scope["method"], scope["query_string"].decode()))
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append(answer)
        leaving = tasks.spawn(receive(), "receive", is_awaited=True)
        await asyncio.wait([answer, leaving], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if answer.done():
            await echo.answer(send, *answer.result())
        else:
            self.left += 1

    def admit(self) -> None:
        self.waiting.pop(0).set_result((200, b"", []))

    def turn_away(self) -> None:
        self.waiting.pop(0).set_result(
            (
                503,
                ERROR,
                [
                    (b"content-type", b"application/json"),
                    (b"retry-after", b"17"),
                    (b"x-more", b"1"),
                ],
            )
        )


def replica(run_dir: str, llm: str, number: int, *, is_ready: bool = True) -> snapshots.RingMember:
    socket_path = f"{run_dir}/{llm}-{number}.sock"
    return snapshots.RingMember(
        f"{llm}/{number}", model.Endpoint("n1", "127.0.0.1", 1, socket_path), is_ready
    )


def routes(run_dir: str) -> tuple[snapshots.LlmRoute, ...]:
    """Return routes to `tiny` with three replicas, `cold` without one yet, and `gone` without any.

    Requests for `cold` are held, those for `gone` are not.
    """
    tiny = tuple(replica(run_dir, "tiny", number) for number in range(3))
    return (
        snapshots.LlmRoute(
            "tiny", ("tiny", "org/tiny 1", "modèle-日本", "lora"), tiny, aliases=ALIASES
        ),
        snapshots.LlmRoute("cold", ("cold", "frosty"), is_held=True),
        snapshots.LlmRoute("gone", ("gone",)),
    )


@contextlib.asynccontextmanager
async def running_llms(
    run_dir: str, secret: str = "", **changes: Any
) -> AsyncIterator[conftest.Mesh]:
    """Run the gateway of `running`, with LLMs and a controller that holds requests."""
    async with contextlib.AsyncExitStack() as stack:
        replicas = {
            f"{llm}/{number}": StreamingReplica(f"{llm}/{number}")
            for llm, count in (("tiny", 3), ("cold", 1))
            for number in range(count)
        }
        for name, server in replicas.items():
            await stack.enter_async_context(
                echo.serving(server, f"{run_dir}/{name.replace('/', '-')}.sock", secret)
            )
        hold = await stack.enter_async_context(
            echo.serving(HoldServer("controller"), f"{run_dir}/hold.sock", secret)
        )
        controller = model.Endpoint("n1", "127.0.0.1", 1, f"{run_dir}/hold.sock")
        mesh = await stack.enter_async_context(
            running(
                run_dir, secret, **{"llms": routes(run_dir), "controller": controller, **changes}
            )
        )
        mesh.echoes |= {**replicas, "hold": hold}
        yield mesh


async def chat(
    mesh: conftest.Mesh,
    name: str = "tiny",
    path: str = "/v1/chat/completions",
    headers: Any = (),
    **more: Any,
) -> httpx.Response:
    """The answer to a chat."""
    return await mesh.http.post(
        path, content=json.dumps({"model": name, **more}), headers=dict(headers)
    )


def fault(answer: Any) -> tuple[int, str, dict[str, Any]]:
    """Status, code and the error of OpenAI's shape."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error
