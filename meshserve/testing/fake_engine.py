"""An engine without vLLM: words by a rule instead of tokens by a model, in OpenAI's shapes, and failures when a test wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from meshserve import errors, tasks
from meshserve.core.interfaces import llm_engine

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

WORDS = ("ash", "birch", "cedar", "elm", "fir", "larch", "oak", "pine", "rowan", "yew")
MAX_TOKENS = 16
STEP_S = 0.005
TTFT_BOUNDS_S = (0.01, 0.1, 1.0, float("inf"))


class Dead(Exception):
    """The engine died under a request."""


class Refused(Exception):
    """A request that OpenAI's API refuses, with the status for it."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class FakeEngine:
    """An `engine_ports.Engine`. `start_failure` and `start_s` say how a start goes, `can_sleep` whether it has GPUs to free.

    `die` and `stall` are what SIGKILL and SIGSTOP do to a real one. `aborted` counts requests whose client left, `calls` is what was asked.
    """

    def __init__(
        self,
        *,
        start_failure: str = "",
        start_s: float = 0.0,
        step_s: float = STEP_S,
        can_sleep: bool = False,
    ) -> None:
        self.start_failure = start_failure
        self.start_s = start_s
        self.step_s = step_s
        self.can_sleep = can_sleep
        self.aborted = 0
        self.calls: list[str] = []
        self._order: llm_engine.EngineOrder | None = None
        self._failure = ""
        self._running = 0
        self._tokens = 0
        self._first_s: list[float] = []
        self._died = asyncio.Event()
        self._may_step = asyncio.Event()
        self._may_step.set()

    @property
    def app(self) -> llm_engine.Asgi:
        """The OpenAI app."""
        return self._answer

    async def start(self, order: llm_engine.EngineOrder) -> None:
        """Take the order, or fail as told."""
        self.calls.append("start")
        await asyncio.sleep(self.start_s)
        if self.start_failure:
            raise errors.LoadFailed(self.start_failure)
        self._order = order

    async def make_token(self) -> None:
        """Make one."""
        self.calls.append("token")
        async for _ in self._words("ready?", 1):
            pass

    def failure(self) -> str:
        """What it was told to die of."""
        return self._failure

    def counts(self) -> llm_engine.EngineCounts:
        """What it does and did."""
        ttft = tuple(
            (bound_s, sum(took_s <= bound_s for took_s in self._first_s))
            for bound_s in TTFT_BOUNDS_S
        )
        return llm_engine.EngineCounts(
            self._running, 0, self._tokens, min(1.0, self._running / 100), ttft, self._tokens
        )

    async def sleep(self, level: int) -> None:
        """Note it, where it can."""
        if not self.can_sleep:
            raise errors.Unsupported("an engine on the CPU has no GPU to free: it can't sleep")
        self.calls.append(f"sleep {level}")

    async def wake(self) -> None:
        """Note it."""
        self.calls.append("wake")

    def stall(self) -> None:
        """Make no more tokens, and say nothing of it."""
        self._may_step.clear()

    def die(self, reason: str = "the engine core was killed") -> None:
        """End as a killed process does: requests in it end with errors."""
        self._failure = self._failure or reason
        self._died.set()
        self._may_step.set()

    def kill(self) -> None:
        """End at once."""
        self.die("it was ended")

    async def close(self) -> None:
        """End."""
        self.calls.append("close")
        self.die("it was closed")

    async def _words(self, prompt: str, count: int) -> Any:
        began_s = asyncio.get_running_loop().time()
        self._running += 1
        try:
            for index in range(count):
                await self._step()
                if not index:
                    self._first_s.append(asyncio.get_running_loop().time() - began_s)
                self._tokens += 1
                yield WORDS[(sum(prompt.encode()) + index * index) % len(WORDS)]
        finally:
            self._running -= 1

    async def _step(self) -> None:
        await asyncio.sleep(self.step_s)
        await self._may_step.wait()
        if self._died.is_set():
            raise Dead(self._failure)

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        asked = tasks.spawn(
            self._respond(scope["path"], await _body(receive), send), "respond", is_awaited=True
        )
        gone = tasks.spawn(_wait_until_gone(receive), "wait until gone", is_awaited=True)
        await asyncio.wait((asked, gone), return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            self.aborted += 1
        asked.cancel()
        gone.cancel()
        await asyncio.gather(asked, gone, return_exceptions=True)

    async def _respond(self, path: str, body: bytes, send: Send) -> None:
        try:
            if path in {"/health", "/metrics"}:
                await _send_text(send, b"" if path == "/health" else self._metrics())
            elif path == "/v1/models":
                await _send_json(
                    send,
                    200,
                    {
                        "object": "list",
                        "data": [{"id": name, "object": "model"} for name in self._names()],
                    },
                )
            else:
                await self._generate(path, self._checked(body), send)
        except Refused as refused:
            await _send_json(
                send,
                refused.status,
                _error(str(refused), "invalid_request_error", refused.param, refused.status),
            )
        except Dead as dead:
            await _send_json(send, 500, _error(str(dead), "InternalServerError", None, 500))

    def _names(self) -> tuple[str, ...]:
        return self._order.spec.names if self._order else ()

    def _metrics(self) -> bytes:
        return f"vllm:num_requests_running {self._running}\nvllm:generation_tokens_total {self._tokens}\n".encode()

    def _checked(self, body: bytes) -> dict[str, Any]:
        try:
            asked = json.loads(body)
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        if asked.get("model") not in self._names():
            raise Refused(404, f"The model `{asked.get('model')}` does not exist.", "model")
        if asked.get("max_tokens", 1) < 0:
            raise Refused(400, "max_tokens must be at least 1", "max_tokens")
        return dict(asked)

    def _adapted(self, name: str) -> str:
        """What sets an adapter's answers apart from those of its base."""
        return name if self._order and name in self._order.adapter_paths else ""

    async def _generate(self, path: str, asked: dict[str, Any], send: Send) -> None:
        kind = {"/v1/chat/completions": _chat, "/v1/completions": _text}.get(path)
        if path == "/v1/embeddings":
            await _send_json(send, 200, _embeddings(asked))
        elif kind is None:
            raise Refused(404, "Not Found")
        else:
            words = self._words(
                self._adapted(asked["model"]) + _prompt(asked),
                asked.get("max_tokens") or MAX_TOKENS,
            )
            if asked.get("stream"):
                await _stream(send, asked, words, kind)
            else:
                made = [word async for word in words]
                usage = {
                    "prompt_tokens": len(_prompt(asked).split()),
                    "completion_tokens": len(made),
                }
                await _send_json(
                    send, 200, kind(asked, " ".join(made), is_whole=True) | {"usage": usage}
                )


def _prompt(asked: dict[str, Any]) -> str:
    """What is to be continued."""
    return str(
        asked.get("prompt")
        or " ".join(str(message.get("content")) for message in asked.get("messages", ()))
    )


def _chat(asked: dict[str, Any], text: str, *, is_whole: bool) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message" if is_whole else "delta": {"role": "assistant", "content": text},
        "finish_reason": _reason(is_whole),
    }
    return {
        "id": "chatcmpl-1",
        "object": _kind("chat.completion", is_whole),
        "created": 0,
        "model": asked["model"],
        "choices": [choice],
    }


def _text(asked: dict[str, Any], text: str, *, is_whole: bool) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": _reason(is_whole)}
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 0,
        "model": asked["model"],
        "choices": [choice],
    }


def _kind(name: str, is_whole: bool) -> str:
    return name if is_whole else f"{name}.chunk"


def _reason(is_whole: bool) -> str | None:
    return "length" if is_whole else None


def _embeddings(asked: dict[str, Any]) -> dict[str, Any]:
    texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
    vectors = [[sum(text.encode()) / 1000, float(len(text))] for text in texts]
    found = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors)
    ]
    return {
        "object": "list",
        "model": asked["model"],
        "data": found,
        "usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)},
    }


async def _stream(
    send: Send, asked: dict[str, Any], words: Any, kind: Callable[..., dict[str, Any]]
) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
        }
    )
    try:
        is_first = True
        async for word in words:
            await _event(send, kind(asked, word if is_first else f" {word}", is_whole=False))
            is_first = False
    except Dead as dead:
        await _event(send, _error(str(dead), "InternalServerError", None, 500))
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _event(send: Send, told: dict[str, Any]) -> None:
    await send(
        {
            "type": "http.response.body",
            "body": b"data: %s\n\n" % json.dumps(told).encode(),
            "more_body": True,
        }
    )


def _error(message: str, kind: str, param: str | None, code: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def _send_json(send: Send, status: int, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*_headers(b"application/json", body)],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _send_text(send: Send, body: bytes) -> None:
    await send(
        {"type": "http.response.start", "status": 200, "headers": [*_headers(b"text/plain", body)]}
    )
    await send({"type": "http.response.body", "body": body})


def _headers(kind: bytes, body: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield b"content-type", kind
    yield b"content-length", b"%d" % len(body)


async def _body(receive: Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
