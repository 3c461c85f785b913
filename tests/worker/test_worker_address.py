from __future__ import annotations

from meshserve.worker import worker_address


def test_a_workers_socket_has_its_name():
    assert (
        worker_address.WorkerAddress("pool-3", "/run/mesh").socket_path == "/run/mesh/pool-3.sock"
    )
