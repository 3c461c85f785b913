from __future__ import annotations

from pathlib import Path

import pytest

from meshserve.protocol import sockets


def test_the_port_and_the_paths_are_those_of_the_listeners(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    with sockets.tcp_socket("127.0.0.1") as tcp, sockets.unix_socket(path) as unix:
        assert sockets.tcp_port([unix, tcp]) == tcp.getsockname()[1]
        assert sockets.unix_paths([tcp, unix]) == (Path(path),)
        assert (sockets.tcp_port([unix]), sockets.unix_paths([tcp])) == (0, ())


def test_a_dead_servers_socket_file_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    sockets.unix_socket(path).close()
    assert Path(path).exists()
    with sockets.unix_socket(path) as listener:
        assert listener.getsockname() == path


def test_a_taken_port_is_an_error() -> None:
    with sockets.tcp_socket("127.0.0.1") as taken:
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            sockets.tcp_socket("127.0.0.1", taken.getsockname()[1])
