from __future__ import annotations

import socket

import pytest

from bench import free_ports


def test_a_port_is_one_that_the_system_gives_to_nobody() -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        assert chosen.getsockname()[1] not in range(*free_ports.PORTS)
    assert free_ports.free_port() in range(*free_ports.PORTS)


def test_a_taken_port_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_ports.free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(free_ports, "PORTS", (port, port + 2))
        assert free_ports.free_port() == port + 1
