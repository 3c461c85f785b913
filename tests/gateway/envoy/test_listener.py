"""One port for everything, and Envoy's own answers."""

from __future__ import annotations

import asyncio
import socket
import time

import grpc
import pytest

from meshserve.gateway.envoy import listener
from tests.gateway import conftest
from tests.gateway.conftest import INFER, first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:1", "127.0.0.1", 1),
        (":80", "0.0.0.0", 80),
        ("[::1]:80", "::1", 80),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
    ],
)
async def test_addresses_are_split(listen: str, host: str, port: int) -> None:
    assert listener.split_address(listen) == (host, port)


@pytest.mark.parametrize("listen", ["", "8080", "127.0.0.1", "example.com:80", "127.0.0.1:http"])
async def test_invalid_addresses_are_refused(listen: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|does not appear"):
        listener.split_address(listen)


async def test_a_taken_address_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"can't listen on {address}: Address already in use"):
            listener.check_is_free(address)
    listener.check_is_free(address)


async def test_http_1_and_2_and_grpc_share_the_port(shared_mesh: conftest.Mesh) -> None:
    assert (await shared_mesh.http.get("/v2/models/iris")).http_version == "HTTP/1.1"
    assert (await shared_mesh.call(first_field(b"iris")))["by"].startswith("default")
    host, port = listener.split_address(shared_mesh.snapshot.listen)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert (await reader.readexactly(9))[3] == 4
    writer.close()
    await writer.wait_closed()


async def test_http_1_0_is_answered(shared_mesh: conftest.Mesh) -> None:
    """As nginx's proxy_pass and `ab` speak it, with and without a host."""
    host, port = listener.split_address(shared_mesh.snapshot.listen)
    for headers in (b"", b"Host: x\r\n"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"POST /v2/models/iris/infer HTTP/1.0\r\n" + headers + b"Content-Length: 2\r\n\r\n{}"
        )
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert b" 200 OK\r\n" in answer
        assert b"chunked" not in answer
        assert b'"path": "/v2/models/iris/infer"' in answer
        writer.close()


async def test_a_call_without_an_answer_ends_at_its_deadline(shared_mesh: conftest.Mesh) -> None:
    code, _ = await shared_mesh.fault(metadata=[("x-say", "slow")], timeout_s=0.2)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_envoy_ends_the_call_and_passes_the_deadline_on(shared_mesh: conftest.Mesh) -> None:
    """By hand, so that no client's own clock ends the call first."""
    headers = {
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": "251m",
        "x-say": "slow",
    }
    began_s = time.monotonic()
    body = b"\x00\x00\x00\x00\x06" + first_field(b"iris")
    async with shared_mesh.http.stream("POST", INFER, content=body, headers=headers) as answer:
        frame = await answer.aread()
    assert (
        time.monotonic() - began_s >= 0.2
    )  # not at once; Envoy's clock counts whole milliseconds, from a little before ours
    # HTTP's bridge adds the head of an empty message.
    assert frame in (b"", b"\x00" * 5)
    seen = [
        picture
        for echo in shared_mesh.echoes.values()
        for picture in echo.seen
        if picture["headers"].get("grpc-timeout") == "251m"
    ]
    assert len(seen) == 1


async def test_a_path_in_another_spelling_is_the_same_path(shared_mesh: conftest.Mesh) -> None:
    answer = await shared_mesh.http.get("/v2/x/../models/./iris")
    assert answer.json()["path"] == "/v2/models/iris"


async def test_bytes_that_are_no_http_break_nothing(shared_mesh: conftest.Mesh) -> None:
    host, port = listener.split_address(shared_mesh.snapshot.listen)
    for junk in (b"\x16\x03\x01\x02\x00" + b"\x00" * 600, b"GET\r\n\r\n", b"\x00" * 10_000):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(junk)
        writer.write_eof()
        assert b"200 OK" not in await reader.read()
        writer.close()
    assert (await shared_mesh.http.get("/healthz")).status_code == 200


async def test_many_calls_at_once_need_no_luck(shared_mesh: conftest.Mesh) -> None:
    answers = await asyncio.gather(
        *(shared_mesh.call(first_field(b"iris"), metadata=[("x-say", "slow")]) for _ in range(1200))
    )
    assert len(answers) == 1200


async def test_a_deadline_is_told_in_the_words_of_grpc() -> None:
    # Triton's clients look for them in the message.
    for status in (408, 504):
        assert listener.MESSAGES[status].startswith("Deadline Exceeded: ")
