"""Envoy's own errors on OpenAI's paths, and where they keep their other form."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from meshserve.protocol import llm_errors, paths
from tests.gateway import conftest, engines

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deserted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    """A gateway without any server behind it."""
    async with engines.running_llms(
        str(tmp_path_factory.mktemp("gw")), controller=None, pools={"default": ()}, routes={}
    ) as mesh:
        yield mesh


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v1/models?x=1",
        "/openai/v1/models",
        "/openai/v1/models/tiny",
        "/v1/responses/r1?model=gone",
    ],
)
async def test_errors_have_openais_form_on_its_paths(deserted: conftest.Mesh, path: str) -> None:
    answer = await deserted.http.get(path)
    assert answer.json() == llm_errors.openai(
        "nobody can answer this now: no healthy upstream", 503
    )
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["content-type"]) == (
        503,
        "1",
        "application/json",
    )


@pytest.mark.parametrize("path", [path for path in paths.ENGINE_PATHS if path != "/invocations"])
async def test_errors_have_openais_form_on_the_bare_paths_of_engines(
    deserted: conftest.Mesh, path: str
) -> None:
    answer = await engines.chat(deserted, "gone", f"{path}?x=1")
    assert engines.fault(answer)[:2] == (503, "service_unavailable")


@pytest.mark.parametrize("path", ["/v1/models/iris", "/v2/models/iris", "/mesh/v1/status"])
async def test_errors_keep_their_form_elsewhere(deserted: conftest.Mesh, path: str) -> None:
    answer = await deserted.http.get(path)
    assert (answer.status_code, answer.json()) == (
        503,
        {"error": "nobody can answer this now: no healthy upstream"},
    )
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/scores", "/tokenize/x", "/v1", "/openai", "/openai/v2/x", "/v2/rerankk", "/x/v1/models"],
)
async def test_paths_beside_openais_are_not_found(deserted: conftest.Mesh, path: str) -> None:
    answer = await deserted.http.post(path, content=b'{"model":"tiny"}')
    assert (answer.status_code, answer.json()) == (
        404,
        {"error": f"nothing is served under {path}"},
    )


async def test_a_page_beside_the_list_of_models_is_not_found(deserted: conftest.Mesh) -> None:
    assert (await deserted.http.get("/v1/modelss")).json() == {
        "error": "nothing is served under /v1/modelss"
    }
    assert engines.fault(await deserted.http.get("/openai/v1/modelss"))[:2] == (404, "not_found")
