"""Requests and models of a hostile user. Each gets its own refusal, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gzip
import json
import random
from typing import NamedTuple

import grpc
import httpx
import numpy as np

from meshserve import tasks
from meshserve.protocol.pb import inference_pb2_grpc as rpc
from tests.chaos import callers, oracle, processes, world
from tests.faults import poisons

POISON_S = 60.0
BOMB_BYTES = 100 << 20
"""Inflated: six times what a request may have."""
SLOW_BODIES, SLOW_S = 30, 6.0


class Sent(NamedTuple):
    """A request's body and further headers."""

    content: bytes
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it


async def poison(arena: world.World, chance: random.Random) -> None:
    """Register a model that ends its process, and ask it: one worker is lost at most."""
    kind = chance.choice(sorted(poisons.KINDS))
    where = chance.choice(["load", "predict"])
    end, cause = poisons.KINDS[kind]
    number = arena.number()
    name = f"poison-{number}"
    # Its bytes are its own: equal ones would be in quarantine already.
    uri = poisons.write(arena.folder / "models" / name, where, f"{end}  # number {number}")
    async with arena.one_worker_less():
        felt = arena.judge.allow("poison", processes.FELT_S)
        body = {"uri": uri, "runtime": "python", "trust": True, "isolate": "none"}
        if await arena.manage("PUT", f"models/{name}", body, "register poison", 200):
            await _ask_poison(arena, name, cause)
        await arena.manage("DELETE", f"models/{name}", None, "delete poison", 200, 404)
        felt.back_s = await arena.until(world.are_all_ready, "all workers are back")


async def _ask_poison(arena: world.World, name: str, cause: str) -> None:
    x = np.full((1, 8), poisons.POISON, np.float32)
    async with callers.open_http(arena.mesh.listen, callers.USER) as http:
        asked = [
            http.post(f"/v2/models/{name}/infer", json=callers.json_request(x), timeout=POISON_S)
            for _ in range(3)
        ]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, httpx.HTTPError):
                arena.excused("poison", callers.BROKEN, repr(answer))
            elif isinstance(answer, BaseException):
                raise answer
            elif answer.status_code != 424 or cause not in answer.text:
                arena.excused("poison", str(answer.status_code), f"{name}: {answer.text}")


async def malformed(arena: world.World, chance: random.Random) -> None:
    """Send bodies that are no requests, to models that others ask: each gets 400 or 404."""
    arena.judge.allow("malformed", processes.FELT_S)
    right = callers.json_request(np.ones((1, 8), np.float32))
    tensor = right["inputs"][0]
    bodies = {
        "no JSON": Sent(b"{"),
        "empty": Sent(b""),
        "deep": Sent(b"[" * 50_000),
        "a list": Sent(b"[1, 2]"),
        "no inputs": Sent(b"{}"),
        "too few values": _body({**tensor, "shape": [4, 8]}),
        "negative": _body({**tensor, "shape": [-1, 8]}),
        "huge shape": _body({**tensor, "shape": [1 << 40, 8]}),
        "no such datatype": _body({**tensor, "datatype": "FP33"}),
        "other width": _body({**tensor, "shape": [2, 4]}),
        "texts": _body({**tensor, "data": ["a"] * 8}),
        "no gzip": Sent(b"junk", {"content-encoding": "gzip"}),
        "cut gzip": Sent(
            gzip.compress(json.dumps(right).encode())[:-9], {"content-encoding": "gzip"}
        ),
        "long binary": Sent(b"{}", {"inference-header-content-length": "999999"}),
        "text length": Sent(b"{}", {"inference-header-content-length": "many"}),
    }
    names = [item.name for item in arena.subjects[world.STILL]]
    async with callers.open_http(arena.mesh.listen, callers.USER) as http:
        for what, body in bodies.items():
            path = f"/v2/models/{chance.choice(names)}/infer"
            await _refused(arena, http, path, body, f"malformed ({what})", {"400"})
        await _refused(
            arena, http, "/v2/models/nobody/infer", _body(tensor), "unknown model", {"404"}
        )


def _body(tensor: dict[str, object]) -> Sent:
    return Sent(json.dumps({"inputs": [tensor]}).encode())


async def _refused(
    arena: world.World,
    http: httpx.AsyncClient,
    path: str,
    sent: Sent,
    what: str,
    right: set[str],
) -> None:
    try:
        answer = await http.post(path, content=sent.content, headers=sent.headers)
    except httpx.HTTPError as error:
        arena.excused(what, callers.BROKEN, repr(error))
        return
    if str(answer.status_code) not in right:
        arena.excused(what, str(answer.status_code), answer.text)


@functools.cache
def bomb() -> bytes:
    """Return a small body that inflates to `BOMB_BYTES`."""
    return gzip.compress(b" " * BOMB_BYTES, 1)


async def gzip_bomb(arena: world.World, chance: random.Random) -> None:
    """Send little that inflates to much: it is refused by its size."""
    arena.judge.allow("gzip bomb", processes.FELT_S)
    names = [item.name for item in arena.subjects[world.STILL]]
    async with callers.open_http(arena.mesh.listen, callers.USER) as http:
        for name in chance.sample(names, 3):
            headers = {"content-encoding": "gzip"}
            path = f"/v2/models/{name}/infer"
            await _refused(arena, http, path, Sent(bomb(), headers), "gzip bomb", {"400", "413"})


async def slow_bodies(arena: world.World, chance: random.Random) -> None:
    """Begin requests whose bodies do not come, and hang up."""
    arena.judge.allow("slow bodies", processes.FELT_S)
    name = chance.choice(arena.subjects[world.STILL]).name
    host, _, port = arena.mesh.listen.partition(":")
    head = (
        f"POST /v2/models/{name}/infer HTTP/1.1\r\nhost: {arena.mesh.listen}\r\n"
        f"authorization: Bearer {callers.USER}\r\ncontent-length: 5000\r\n\r\n{{"
    )

    async def hang() -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode())
            await asyncio.sleep(SLOW_S)
            writer.close()

    await asyncio.gather(*(hang() for _ in range(SLOW_BODIES)))


async def abandon(arena: world.World, chance: random.Random) -> None:
    """Leave in the middle of requests, by a cancelled call or a closed connection."""
    arena.judge.allow("abandoned calls", processes.FELT_S)
    groups = (world.STILL, world.ISOLATED, world.CLASSES)
    subjects = [item for group in groups for item in arena.subjects[group]]
    async with grpc.aio.insecure_channel(arena.mesh.listen) as channel:
        stub = rpc.GRPCInferenceServiceStub(channel)
        left = [
            tasks.spawn(_left(stub, chance.choice(subjects), chance.uniform(0, 0.02)), "leave")
            for _ in range(50)
        ]
        await asyncio.gather(*left)


async def _left(
    stub: rpc.GRPCInferenceServiceStub, subject: oracle.Subject, after_s: float
) -> None:
    x = np.ones((2000, 8), np.float32)
    metadata = tuple(callers.bearer(callers.USER).items())
    call = stub.ModelInfer(callers.infer_request(subject.name, x), metadata=metadata)
    await asyncio.sleep(after_s)
    call.cancel()
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        await call


async def wrong_keys(arena: world.World, chance: random.Random) -> None:
    """Ask without a key, with a wrong one, and manage with a user's."""
    arena.judge.allow("wrong keys", processes.FELT_S)
    body = json.dumps(callers.json_request(np.ones((1, 8), np.float32))).encode()
    name = chance.choice(arena.subjects[world.STILL]).name
    infer, manage = f"/v2/models/{name}/infer", f"/mesh/v1/models/{name}/unload"
    user = callers.bearer(callers.USER)
    async with callers.open_http(arena.mesh.listen) as http:
        for path, headers, right in (
            (infer, {}, "401"),
            (infer, callers.bearer("guessed"), "401"),
            (infer, {"x-mesh-model": name}, "401"),
            (manage, user, "403"),
            (manage, {}, "401"),
        ):
            await _refused(arena, http, path, Sent(body, headers), "wrong key", {right})


async def reset_connections(arena: world.World, _: random.Random) -> None:
    """Open connections, send half a request line, and reset them."""
    arena.judge.allow("resets", processes.FELT_S)
    host, _sep, port = arena.mesh.listen.partition(":")
    for _number in range(50):
        with contextlib.suppress(OSError):
            _reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v2/mod")
            writer.transport.abort()
