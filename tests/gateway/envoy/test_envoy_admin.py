"""Questions to a real Envoy."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from meshserve.gateway.envoy import envoy_admin
from tests.gateway import conftest

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


async def test_admin_answers_readiness_and_statistics(shared_mesh: conftest.Mesh) -> None:
    envoy = shared_mesh.gateway._envoy.admin
    assert await envoy.is_ready()
    stats = await envoy.stats("^listener_manager.(total_listeners_active|lds.version_text)$")
    # The port's, and one for any worker of each pool.
    pools = len(shared_mesh.snapshot.pools)
    assert stats["listener_manager.total_listeners_active"] == str(1 + pools)
    assert len(stats["listener_manager.lds.version_text"]) == 16
    assert "envoy_server_uptime" in await envoy.prometheus()


async def test_a_bad_command_is_an_error(shared_mesh: conftest.Mesh) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        await shared_mesh.gateway._envoy.admin.post("/no-such-command")


async def test_no_envoy_is_an_error(tmp_path: Path) -> None:
    envoy = envoy_admin.EnvoyAdmin(str(tmp_path / "nobody.sock"))
    with pytest.raises(httpx.HTTPError):
        await envoy.is_ready()
    await envoy.close()
