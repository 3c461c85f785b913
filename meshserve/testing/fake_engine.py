"""An engine without a model: it answers OpenAI's API with words that follow a rule."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

from meshserve import errors
from meshserve.core.interfaces import llm_engine

WORDS = ("ash", "birch", "cedar", "elm", "fir", "larch", "oak", "pine", "rowan", "yew")
MAX_TOKENS = 16
STEP_S = 0.005
TTFT_BOUNDS_S = (0.01, 0.1, 1.0, float("inf"))
Json: TypeAlias = dict[str, Any]


class Dead(Exception):
    """The engine died under a request."""


class Refused(Exception):
    """A request that OpenAI's API answers with an error, and the HTTP status of the answer."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param


class FakeEngine(llm_engine.Engine):
    """Passes the same checks as vLLM's engine, and fails when a test wants it to.

    A start takes `start_s` seconds, and fails if `start_failure` has a reason; a token takes
    `step_s` seconds. `die` and `stall` have the effects of SIGKILL and SIGSTOP. `calls` records
    the names of calls, and `aborted` counts the requests whose client left.
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
        self._adapters: set[str] = set()
        self._failure = ""
        self._running = 0
        self._tokens = 0
        self._first_token_s: list[float] = []
        self._died = asyncio.Event()
        self._may_step = asyncio.Event()
        self._may_step.set()

    @property
    def capabilities(self) -> llm_engine.EngineCapabilities:
        """The engine can sleep if the constructor was told so, and serves adapters."""
        return llm_engine.EngineCapabilities(
            can_sleep=self.can_sleep, has_adapters=True, can_change_adapters=True
        )

    @property
    def app(self) -> llm_engine.Asgi:
        """The OpenAI app."""
        return self._answer

    async def start(self, order: llm_engine.EngineOrder) -> None:
        """Keep the order after `start_s` seconds. Raises LoadFailed with `start_failure`."""
        self.calls.append("start")
        await asyncio.sleep(self.start_s)
        if self.start_failure:
            raise errors.LoadFailed(self.start_failure)
        self._order = order
        self._adapters = set(order.adapter_paths)

    async def make_token(self) -> None:
        """Generate one token. Raises Unavailable if the engine has died."""
        self.calls.append("token")
        try:
            async for _ in self._words("ready?", 1):
                pass
        except Dead as dead:
            raise errors.Unavailable(str(dead)) from dead

    def failure(self) -> str:
        """Return why the engine died, "" while it lives."""
        return self._failure

    def counts(self) -> llm_engine.EngineCounts:
        """Return its counts."""
        ttft = tuple(
            (bound_s, sum(took_s <= bound_s for took_s in self._first_token_s))
            for bound_s in TTFT_BOUNDS_S
        )
        return llm_engine.EngineCounts(
            running=self._running,
            tokens=self._tokens,
            kv_used=min(1.0, self._running / 100),
            ttft=ttft,
            progress=self._tokens,
        )

    async def add_adapter(self, name: str, path: str) -> None:
        """Serve it. Raises LoadFailed for a path with "spoilt" in it."""
        self.calls.append(f"add {name}")
        if "spoilt" in path:
            raise errors.LoadFailed(f"{path} is no adapter")
        self._adapters.add(name)

    async def remove_adapter(self, name: str) -> None:
        """Serve it no longer."""
        self.calls.append(f"remove {name}")
        self._adapters.discard(name)

    async def sleep(self, level: int) -> None:
        """Record the call. Raises Unsupported unless the engine `can_sleep`."""
        if not self.can_sleep:
            await super().sleep(level)
        self.calls.append(f"sleep {level}")

    async def wake(self) -> None:
        """Record the call."""
        self.calls.append("wake")

    def stall(self) -> None:
        """Generate no more tokens, without reporting a failure."""
        self._may_step.clear()

    def die(self, reason: str = "the engine core was killed") -> None:
        """Fail as a killed engine does: all running requests end with errors."""
        self._failure = self._failure or reason
        self._died.set()
        # A request that stands still must see that the engine is dead.
        self._may_step.set()

    def kill(self) -> None:
        """Die."""
        self.die("it was ended")

    async def close(self) -> None:
        """Die, and record the call."""
        self.calls.append("close")
        self.die("it was closed")

    async def _words(self, prompt: str, count: int) -> AsyncIterator[str]:
        began_s = asyncio.get_running_loop().time()
        self._running += 1
        try:
            for index in range(count):
                await self._step()
                if not index:
                    self._first_token_s.append(asyncio.get_running_loop().time() - began_s)
                self._tokens += 1
                # They follow from the prompt, so that a test knows whose answer it got.
                yield WORDS[(sum(prompt.encode()) + index * index) % len(WORDS)]
        finally:
            # Also for a client that leaves: its request is cancelled where it waits above.
            self._running -= 1

    async def _step(self) -> None:
        await asyncio.sleep(self.step_s)
        await self._may_step.wait()
        if self._died.is_set():
            raise Dead(self._failure)

    async def _answer(
        self, scope: llm_engine.Scope, receive: llm_engine.Receive, send: llm_engine.Send
    ) -> None:
        body = await _read_body(receive)
        # The group waits for both tasks, so that none outlives its request.
        async with asyncio.TaskGroup() as group:
            response = group.create_task(self._respond(scope["path"], body, send))
            departure = group.create_task(_wait_until_gone(receive))
            await asyncio.wait((response, departure), return_when=asyncio.FIRST_COMPLETED)
            self.aborted += not response.done()
            response.cancel()
            departure.cancel()

    async def _respond(self, path: str, body: bytes, send: llm_engine.Send) -> None:
        try:
            if path in {"/health", "/metrics"}:
                await _send(send, 200, b"text/plain", b"" if path == "/health" else self._metrics())
            elif path == "/v1/models":
                models = [{"id": name, "object": "model"} for name in self._names()]
                await _send_json(send, 200, {"object": "list", "data": models})
            else:
                await self._generate(path, self._parse(body), send)
        except Refused as refused:
            error = _error(str(refused), "invalid_request_error", refused.status, refused.param)
            await _send_json(send, refused.status, error)
        except Dead as dead:
            await _send_json(send, 500, _error(str(dead), "InternalServerError", 500))

    def _names(self) -> tuple[str, ...]:
        return (self._order.spec.name, *self._adapters) if self._order else ()

    def _metrics(self) -> bytes:
        return (
            f"vllm:num_requests_running {self._running}\n"
            f"vllm:generation_tokens_total {self._tokens}\n"
        ).encode()

    def _parse(self, body: bytes) -> Json:
        try:
            request: Json = json.loads(body)
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        if request.get("model") not in self._names():
            raise Refused(404, f"The model `{request.get('model')}` does not exist.", "model")
        if request.get("max_tokens", 1) < 0:
            raise Refused(400, "max_tokens must be at least 1", "max_tokens")
        return request

    async def _generate(self, path: str, request: Json, send: llm_engine.Send) -> None:
        if path == "/v1/embeddings":
            await _send_json(send, 200, _embeddings(request))
        elif path not in {"/v1/chat/completions", "/v1/completions"}:
            raise Refused(404, "Not Found")
        else:
            # An adapter's name is part of the prompt, so its answers differ from its base model's.
            has_adapter = request["model"] in self._adapters
            prompt = (request["model"] if has_adapter else "") + _prompt(request)
            words = self._words(prompt, request.get("max_tokens") or MAX_TOKENS)
            answer = _stream if request.get("stream") else _complete
            await answer(send, request, words, is_chat="chat" in path)


def _prompt(request: Json) -> str:
    messages = " ".join(str(message.get("content")) for message in request.get("messages", ()))
    return str(request.get("prompt") or messages)


async def _complete(
    send: llm_engine.Send, request: Json, words: AsyncIterator[str], *, is_chat: bool
) -> None:
    tokens = [word async for word in words]
    usage = {"prompt_tokens": len(_prompt(request).split()), "completion_tokens": len(tokens)}
    text = " ".join(tokens)
    completion = (_chat if is_chat else _text)(request, text, is_whole=True)
    await _send_json(send, 200, completion | {"usage": usage})


async def _stream(
    send: llm_engine.Send, request: Json, words: AsyncIterator[str], *, is_chat: bool
) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    separator = ""
    try:
        async for word in words:
            chunk = (_chat if is_chat else _text)(request, separator + word, is_whole=False)
            await _send_event(send, chunk)
            separator = " "
    except Dead as dead:
        await _send_event(send, _error(str(dead), "InternalServerError", 500))
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _send_event(send: llm_engine.Send, event: Json) -> None:
    body = b"data: %s\n\n" % json.dumps(event).encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _chat(request: Json, text: str, *, is_whole: bool) -> Json:
    message = {"role": "assistant", "content": text}
    choice = {"message" if is_whole else "delta": message}
    return _completion(request, "chat.completion" + ".chunk" * (not is_whole), choice, is_whole)


def _text(request: Json, text: str, *, is_whole: bool) -> Json:
    return _completion(request, "text_completion", {"text": text}, is_whole)


def _completion(request: Json, kind: str, choice: Json, is_whole: bool) -> Json:
    reason = "length" if is_whole else None
    return {
        "id": "cmpl-1",
        "object": kind,
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "finish_reason": reason, **choice}],
    }


def _embeddings(request: Json) -> Json:
    texts = [request["input"]] if isinstance(request["input"], str) else request["input"]
    data = [
        {"object": "embedding", "index": index, "embedding": [sum(text.encode()) / 1000, len(text)]}
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "model": request["model"], "data": data, "usage": usage}


def _error(message: str, kind: str, code: int, param: str | None = None) -> Json:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def _send_json(send: llm_engine.Send, status: int, body: Json) -> None:
    await _send(send, status, b"application/json", json.dumps(body).encode())


async def _send(send: llm_engine.Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _read_body(receive: llm_engine.Receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def _wait_until_gone(receive: llm_engine.Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
