from __future__ import annotations

from meshserve.core.values import snapshots
from meshserve.gateway.sidecar import server_metadata
from tests.gateway.conftest import member


def test_a_mesh_is_ready_with_one_ready_worker_in_any_pool():
    def is_ready(**pools):
        return server_metadata.is_ready(snapshots.GatewaySnapshot("127.0.0.1:1", "n1", pools))

    assert not is_ready()
    assert not is_ready(default=(), big=(member("/run", "big-0", is_ready=False),))
    assert is_ready(
        default=(), big=(member("/run", "big-0", is_ready=False), member("/run", "big-1"))
    )


def test_a_mesh_without_workers_is_ready_with_an_llm():
    def is_ready(*members):
        llms = (snapshots.LlmRoute("tiny", ("tiny",), is_held=True),)
        return server_metadata.is_ready(
            snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {"default": members}, llms=llms)
        )

    assert is_ready()
    assert not is_ready(member("/run", "default-0", is_ready=False))
