from __future__ import annotations

from meshserve.worker import place


def test_a_workers_socket_has_its_name():
    assert place.Place("pool-3", "/run/mesh").socket_path == "/run/mesh/pool-3.sock"
