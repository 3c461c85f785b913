"""Workers that die, and bytes that no worker should send, behind a gateway that sends frames."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from meshserve import tasks
from tests import support
from tests.gateway import conftest
from tests.gateway.conftest import first_field, member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


@contextlib.asynccontextmanager
async def process_of(run_dir: str, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    path = f"{run_dir}/{name}.sock"
    words = (sys.executable, "-m", "tests.gateway.frame_server", path, name)
    process = await asyncio.create_subprocess_exec(*words)
    await support.wait_until_async(Path(path).exists)
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def test_no_call_fails_when_a_worker_is_killed(run_dir: str, module_dir: str) -> None:
    async with (
        process_of(run_dir, "a") as first,
        process_of(run_dir, "b"),
        conftest.running(
            run_dir,
            module_dir=module_dir,
            pools={"default": (member(run_dir, "a"), member(run_dir, "b"))},
            routes={},
        ) as mesh,
    ):
        calls = [
            mesh.call(first_field(b"%d" % number), metadata=[("x-say", "slow")], timeout_s=60)
            for number in range(60)
        ]
        asked = tasks.spawn(gather(calls), "calls", is_awaited=True)
        # Each takes a second.
        await asyncio.sleep(0.3)
        os.kill(first.pid, signal.SIGKILL)
        assert {picture["by"] for picture in await asked} <= {"a", "b"}


async def gather(calls: list[Any]) -> list[Any]:
    return await asyncio.gather(*calls)


def answer(serial: int, body: bytes, status: int = 200, block: bytes = b"") -> bytes:
    head = struct.pack("<BBHIII", 0xF8, 1, status, serial, len(block), len(body))
    return head + block + body


WRONG: dict[str, Callable[[int], bytes]] = {
    "of another request": lambda serial: answer(serial ^ 1, b"wrong"),
    "of another version": lambda serial: answer(serial, b"wrong").replace(b"\xf8\1", b"\xf8\2"),
    "with more behind it": lambda serial: answer(serial, b"wrong") + b"more",
    "twice": lambda serial: answer(serial, b"wrong") * 2,
    "with a header of several lines": lambda serial: answer(serial, b"wrong", block=b"a\nb\nc\n"),
    "with a header that is none": lambda serial: answer(serial, b"wrong", block=b"A b\nc\n"),
    "with a status that is none": lambda serial: answer(serial, b"wrong", status=101),
    "HTTP": lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_answer_reaches_nobody(run_dir: str, module_dir: str, name: str) -> None:
    """The first answers are wrong; the last one is right, on a new connection."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(1)
                if head != b"\xf7":  # a health check
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    continue
                _, _, serial, block, body = struct.unpack("<BBxIII", await reader.readexactly(15))
                await reader.readexactly(block + body)
                asked += 1
                is_last = asked == 3
                writer.write(answer(serial, b'{"right": 1}') if is_last else WRONG[name](serial))
                if not is_last and name == "nothing":
                    break
        writer.close()

    server = await asyncio.start_unix_server(serve, f"{run_dir}/wrong.sock")
    pools = {"default": (member(run_dir, "wrong"),)}
    async with conftest.running(run_dir, module_dir=module_dir, pools=pools, routes={}) as mesh:
        assert await mesh.call(first_field(b"a")) == {"right": 1}
    assert asked == 3
    server.close()
