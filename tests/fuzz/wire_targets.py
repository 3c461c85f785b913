"""Targets for bytes on the wire beside requests: remembered calls, engines' events, frames."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any

from meshserve import config, errors
from meshserve.core.values import snapshots
from meshserve.gateway.envoy import routes
from meshserve.llm import generate_api, model_names
from meshserve.protocol import inference, repeated_calls
from meshserve.worker.models import run_journal, tensor_frames

MARK = b'"model": "known"'


def grpc_repeated(data: bytes) -> None:
    """Read the same call until it is remembered, and others like it: the words stay the same."""
    other = bytes([*data[:-1], data[-1] ^ 1]) if data else data
    for body in (*[data] * (repeated_calls.MISSES_MIN + 1), other, data):
        assert _said(repeated_calls.decode_infer, body) == _said(inference.decode_infer, body)


def _said(decode: Any, body: bytes) -> Any:
    try:
        call = decode(body)
    except errors.InvalidRequest as error:
        return error.message
    inputs = {
        name: (tensor.datatype, tensor.array.shape, tensor.array.tobytes())
        for name, tensor in call.inputs.items()
        if not tensor.array.dtype.hasobject
    }
    return call.model, call.version, call.id, inputs, call.outputs, call.is_raw, call.classes


def engine_events(data: bytes) -> None:
    """Rename the model in an engine's events: the pieces in which they come change nothing."""
    size = data[0] % 40 + 1 if data else 1
    pieces = [data[start : start + size] for start in range(0, len(data), size)] or [b""]
    whole, cut = asyncio.run(_renamed([data])), asyncio.run(_renamed(pieces))
    assert whole == cut
    assert MARK not in whole


async def _renamed(pieces: list[bytes]) -> bytes:
    sent = []

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message.get("body", b""))

    answer = model_names.RenamedAnswer("known", "called", send)
    head = [(b"content-type", b"text/event-stream")]
    await answer.send({"type": "http.response.start", "status": 200, "headers": head})
    for left, piece in reversed(list(enumerate(reversed(pieces)))):
        await answer.send({"type": "http.response.body", "body": piece, "more_body": left > 0})
    return b"".join(sent)


def generate_body(data: bytes) -> None:
    """Read a request of the protocol's `generate`, which is turned into a completion's."""
    asyncio.run(_generated(data))


async def _generated(data: bytes) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(_: Mapping[str, Any]) -> None:
        pass

    async def engine(_: Any, receive: Any, send: Any) -> None:
        json.loads((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"choices": []}'})

    scope = {"method": "POST", "path": "/v2/models/m/generate", "headers": []}
    handler = generate_api.handler(engine, scope)
    assert handler is not None
    await handler.answer(scope, receive, send)


def process_frame(data: bytes) -> None:
    """Read a message of a model's process, whose code may be hostile, and a worker's journal."""
    run_journal.running_keys(data)
    ours, theirs = socket.socketpair()
    with ours, theirs, contextlib.suppress(EOFError, tensor_frames.BadFrame):
        theirs.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            theirs.sendall(data)
        theirs.close()
        tensor_frames.receive(ours)


def gateway_keys(data: bytes) -> None:
    """Read keys and models from a configuration, and build the gateway's from them."""
    with contextlib.suppress(errors.ConfigInvalid, ValueError):
        document = json.loads(data)
        settings = config.parse(document)
        keys = tuple(snapshots.ApiKey(known.client, known.key) for known in settings.gateway.keys)
        pools = {entry.name: "other" for entry in settings.models}
        snap = snapshots.GatewaySnapshot("127.0.0.1:1", "n", {}, routes=pools, keys=keys)
        text = json.dumps(routes.table(snap))
        assert text.encode().decode() == text
