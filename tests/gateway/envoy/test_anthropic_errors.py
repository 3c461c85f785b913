"""Envoy's and the script's own errors on Anthropic's paths."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from meshserve.core.values import snapshots
from tests.gateway import conftest, engines
from tests.gateway.conftest import running

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]
PATHS = ["/v1/messages", "/openai/v1/messages", "/v1/messages/count_tokens?beta=true"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    async with engines.running_llms(str(tmp_path_factory.mktemp("gw"))) as started:
        yield started


@pytest.mark.parametrize("path", PATHS)
async def test_the_scripts_refusals_have_anthropics_form(shared: conftest.Mesh, path: str) -> None:
    for content, status, kind in (
        (b'{"model": "nobody"}', 404, "not_found_error"),
        (b"{", 400, "invalid_request_error"),
    ):
        answer = await shared.http.post(path, content=content)
        assert (answer.status_code, answer.json()["type"]) == (status, "error")
        assert answer.json()["error"]["type"] == kind
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
async def test_envoys_own_answers_have_anthropics_form(run_dir: str, path: str) -> None:
    keys = (snapshots.ApiKey("shop", "secret"),)
    async with running(run_dir, keys=keys) as mesh:
        answer = await mesh.http.post(path, content=b"{}")
        assert (answer.status_code, answer.json()["type"]) == (401, "error")
        assert answer.json()["error"]["type"] == "authentication_error"
