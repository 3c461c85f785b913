"""The holder's side of Envoy's hot restart; test_envoy_keeper.py has it with a real Envoy."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshserve.gateway.envoy import port_holder
from tests import support

pytestmark = pytest.mark.edge

ADMIN_DOWN = b"\x0a\x02\x12\x00"
DRAIN = b"\x0a\x02\x22\x00"


def framed(message: bytes) -> bytes:
    return struct.pack(">Q", len(message)) + message


def pass_socket(address: str) -> bytes:
    text = bytes([0x0A, len(address)]) + address.encode()
    request = bytes([0x0A, len(text)]) + text
    return bytes([0x0A, len(request)]) + request


class Envoy:
    """The child's side: asks, and takes descriptors."""

    def __init__(self, holder: port_holder.PortHolder, options: list[str]) -> None:
        self.holder = holder
        path = options[options.index("--socket-path") + 1]
        base_id = int(options[options.index("--base-id") + 1]) * 10
        self.parent = f"{path}_parent_{base_id}"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"{path}_child_{base_id + 1}")

    def ask(self, message: bytes) -> tuple[bytes, list[int]]:
        self.socket.sendto(framed(message), self.parent)
        self.holder.answer()
        answer, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 1)
        return answer, descriptors


@pytest.fixture
def holder(run_dir: str) -> Iterator[port_holder.PortHolder]:
    with contextlib.closing(port_holder.PortHolder(f"{run_dir}/hot")) as new:
        yield new


@pytest.fixture
def envoy(holder: port_holder.PortHolder) -> Iterator[Envoy]:
    asking = Envoy(holder, holder.prepare())
    with asking.socket:
        yield asking


def shared(options: list[str]) -> Path:
    base_id = int(options[options.index("--base-id") + 1]) * 10
    return port_holder.SHARED_MEMORY / f"envoy_shared_memory_{base_id}"


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_socket_is_bound_when_envoy_asks_first_and_passed_again(
    envoy: Envoy, holder: port_holder.PortHolder, host: str
) -> None:
    port = support.free_port()
    address = f"tcp://{host}:{port}"
    _, (first,) = envoy.ask(pass_socket(address))
    socket.close(first)
    with socket.create_connection((host.strip("[]"), port), 5):
        answer, (second,) = envoy.ask(pass_socket(address))
        assert answer == framed(b"\x12\x02\x0a\x00")
        with socket.socket(fileno=second) as passed:
            passed.settimeout(5)
            passed.accept()[0].close()
    holder.keep_only([])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host.strip("[]"), port), 5)


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:80", "udp://127.0.0.1:80", "tcp://[x]:1"])
def test_an_address_that_cannot_be_listened_on_is_left_to_envoy(envoy: Envoy, address: str) -> None:
    answer, descriptors = envoy.ask(pass_socket(address))
    assert descriptors == []
    # `fd: -1` of a protobuf int32.
    assert answer == framed(b"\x12\x0d\x0a\x0b\x08" + b"\xff" * 9 + b"\x01")


def test_only_the_named_addresses_stay_open(envoy: Envoy, holder: port_holder.PortHolder) -> None:
    ports = [support.free_port() for _ in range(2)]
    for port in ports:
        _, (descriptor,) = envoy.ask(pass_socket(f"tcp://127.0.0.1:{port}"))
        socket.close(descriptor)
    holder.keep_only([f"tcp://127.0.0.1:{ports[1]}"])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", ports[0]), 5)
    socket.create_connection(("127.0.0.1", ports[1]), 5).close()


def test_a_port_that_refuses_still_has_those_who_came_before(
    envoy: Envoy, holder: port_holder.PortHolder
) -> None:
    port = support.free_port()
    _, (descriptor,) = envoy.ask(pass_socket(f"tcp://127.0.0.1:{port}"))
    early = socket.create_connection(("127.0.0.1", port), 5)
    with early, socket.socket(fileno=descriptor) as passed:
        holder.refuse()
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", port), 0.2)
        passed.settimeout(5)
        accepted, _ = passed.accept()
        with accepted:
            early.sendall(b"x")
            assert accepted.recv(1) == b"x"


def test_the_admin_is_free_at_once(envoy: Envoy) -> None:
    assert envoy.ask(ADMIN_DOWN) == (framed(b"\x12\x02\x12\x00"), [])


def test_shared_memory_lasts_until_envoy_has_begun(holder: port_holder.PortHolder) -> None:
    options = holder.prepare()
    file = shared(options)
    assert (file.stat().st_size, file.stat().st_mode & 0o777) == (104, 0o600)
    asking = Envoy(holder, options)
    with asking.socket:
        asking.socket.sendto(framed(DRAIN), asking.parent)
        holder.answer()
    assert not file.exists()


def test_nothing_is_left_for_the_next_envoy_or_after_the_last(
    holder: port_holder.PortHolder, run_dir: str
) -> None:
    first = shared(holder.prepare())
    second = shared(holder.prepare())
    assert not first.exists() or first == second
    holder.close()
    assert not second.exists()
    assert list(Path(run_dir).iterdir()) == []


@pytest.mark.parametrize(
    "message", [b"", b"x", b"\0" * 8, framed(b"\x0a\x02\x2a\x00"), b"\xff" * 99]
)
def test_what_is_no_question_is_ignored(
    envoy: Envoy, holder: port_holder.PortHolder, message: bytes
) -> None:
    envoy.socket.sendto(message, envoy.parent)
    holder.answer()
    assert envoy.ask(ADMIN_DOWN)[1] == []


def test_without_shared_memory_envoy_runs_without_a_holder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, holder: port_holder.PortHolder
) -> None:
    missing: Any = tmp_path / "missing"
    monkeypatch.setattr(port_holder, "SHARED_MEMORY", missing)
    assert holder.prepare() == ["--disable-hot-restart"]
    assert holder.fileno() == -1
