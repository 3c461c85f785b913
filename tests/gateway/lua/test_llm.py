"""Requests to LLMs in the script of a real Envoy: routing, holding and refusals."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from meshserve import tasks
from meshserve.core.values import model, snapshots
from tests import support
from tests.gateway import conftest, engines

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

chat, fault = engines.chat, engines.fault


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    async with engines.running_llms(str(tmp_path_factory.mktemp("gw"))) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def llms(run_dir: str) -> AsyncIterator[conftest.Mesh]:
    """One of the test's own."""
    async with engines.running_llms(run_dir) as started:
        yield started


def later(call: Any) -> Any:
    return tasks.spawn(call, "call", is_awaited=True)


async def until_waiting(mesh: conftest.Mesh, count: int) -> None:
    await support.wait_until_async(
        lambda: len(mesh.echoes["hold"].waiting) == count, what=f"{count} wait"
    )


def with_llm(mesh: conftest.Mesh, name: str, **changes: Any) -> snapshots.GatewaySnapshot:
    return replace(
        mesh.snapshot,
        llms=tuple(
            replace(llm, **changes) if llm.name == name else llm for llm in mesh.snapshot.llms
        ),
    )


def ready(mesh: conftest.Mesh) -> snapshots.GatewaySnapshot:
    return with_llm(
        mesh, "cold", members=(engines.replica(mesh.run_dir, "cold", 0),), is_held=False
    )


async def test_an_unknown_model_is_not_found(shared: conftest.Mesh) -> None:
    for path in ("/v1/chat/completions", "/openai/v1/embeddings", "/rerank"):
        status, code, error = fault(await chat(shared, 'no"body\n', path))
        assert (status, code, error["param"], error["type"]) == (
            404,
            "model_not_found",
            "model",
            "invalid_request_error",
        )
        assert error["message"] == 'The model `no"body\n` does not exist.'
    assert (await chat(shared, "huge")).status_code == 404
    assert (await chat(shared, "iris")).headers["content-type"] == "application/json"


async def test_a_refusal_names_the_mistake(shared: conftest.Mesh) -> None:
    for body, param in ((b"{}", "model"), (b'{"model":1}', "model"), (b"{", None)):
        status, code, error = fault(await shared.http.post("/v1/completions", content=body))
        assert (status, code, error["param"]) == (400, "invalid_request", param)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/openai/v1/embeddings/", "/v1/messages"])
async def test_methods_without_a_body_are_not_allowed_where_one_is_needed(
    shared: conftest.Mesh, method: str, path: str
) -> None:
    answer = await shared.http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert "use POST" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/files"), ("POST", "/v1/files"), ("DELETE", "/openai/v1/batches/batch_1")],
)
async def test_a_path_that_no_engine_has_is_told_as_unknown(
    shared: conftest.Mesh, method: str, path: str
) -> None:
    status, code, error = fault(await shared.http.request(method, path))
    assert (status, code) == (404, "unknown_url")
    assert f"{method} {path.removeprefix('/openai')}. There are: /v1/models" in error["message"]
    # A path that an engine may have of its own is its model's matter.
    assert (await chat(shared, "tiny", "/v1/own")).status_code == 200
    status, code, _ = fault(await shared.http.get("/v1/responses/resp_1"))
    assert (status, code) == (400, "invalid_request")


async def test_a_compressed_body_is_refused_by_the_name_of_its_encoding(
    shared: conftest.Mesh,
) -> None:
    headers = {"content-encoding": "gzip"}
    answer = await shared.http.post("/v1/completions", content=b"\x1f\x8b", headers=headers)
    status, _, error = fault(answer)
    assert status == 415
    assert "`gzip` is not served" in error["message"]
    plain = await shared.http.post(
        "/v1/completions", content=b'{"model": "tiny"}', headers={"content-encoding": "identity"}
    )
    assert plain.status_code == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v2/models/tiny/generate", "tiny"),
        ("/v2/models/tiny/generate_stream", "tiny"),
        ("/v2/models/tiny/versions/1/generate", "tiny"),
        ("/v2/models/org%2Ftiny%201/versions/1/generate_stream", "org/tiny 1"),
        ("/v2/models/org%2Ftiny%201/generate", "org/tiny 1"),
        ("/v2/models/org/tiny%201/generate", "org/tiny 1"),
    ],
)
async def test_a_path_of_generate_names_its_llm(
    shared: conftest.Mesh, path: str, name: str
) -> None:
    body = b'{"text_input": "a", "model": "x"}'
    answer = (await shared.http.post(path, content=body)).json()
    assert (answer["headers"]["x-mesh-model"], answer["path"]) == (name, path)
    assert answer["by"].startswith("tiny/")
    small = await shared.http.post("/v2/models/iris/generate", content=body)
    assert small.json()["by"].startswith("default-")


async def test_an_llms_own_name_may_have_a_slash(llms: conftest.Mesh) -> None:
    members = tuple(engines.replica(llms.run_dir, "tiny", number) for number in range(3))
    route = snapshots.LlmRoute("org/small", ("org/small",), members)
    await llms.gateway.apply(replace(llms.snapshot, llms=(route,), revision=1))
    answer = (await chat(llms, "org/small")).json()
    assert answer["headers"]["x-mesh-model"] == "org/small"
    assert (await llms.http.get("/v1/models/org/small")).json()["by"] == "controller"


@pytest.mark.parametrize(
    "query", ["model=tiny", "x=1&model=tiny&y", "model=x&model=tiny", "model=t%69ny"]
)
async def test_a_request_without_a_body_names_its_model_in_the_query(
    shared: conftest.Mesh, query: str
) -> None:
    for method in ("GET", "DELETE", "POST"):
        answer = (await shared.http.request(method, f"/v1/responses/r1?{query}")).json()
        assert (answer["headers"]["x-mesh-model"], answer["path"]) == ("tiny", "/v1/responses/r1")
    answer = await shared.http.get("/v1/responses/r1?model=org%2Ftiny+1")
    assert answer.json()["headers"]["x-mesh-model"] == "org/tiny 1"


@pytest.mark.parametrize("query", ["", "?", "?model=", "?model", "?xmodel=tiny", "?model=%FF"])
async def test_without_a_body_and_a_query_the_model_is_missing(
    shared: conftest.Mesh, query: str
) -> None:
    status, _, error = fault(await shared.http.get(f"/v1/responses/r1{query}"))
    assert (status, error["param"]) == (400, "model")
    assert "?model=NAME" in error["message"]


async def test_the_refusal_of_a_large_request_names_the_limit(run_dir: str) -> None:
    async with engines.running_llms(run_dir, request_bytes_max=100_000) as mesh:
        big = '{"model": "tiny", "text": "' + "x" * 200_000 + '"}'

        async def in_chunks() -> AsyncIterator[bytes]:
            yield big.encode()

        for content in (big, big * 20, in_chunks()):
            status, code, error = fault(await mesh.http.post("/v1/embeddings", content=content))
            assert (status, code, error["type"]) == (
                413,
                "request_too_large",
                "invalid_request_error",
            )
            assert "larger than the limit of 100000 bytes" in error["message"]
        assert (await chat(mesh, text="x" * 99_000)).json()["bytes"] > 99_000


async def test_bodies_of_8_mib_pass_whole(shared: conftest.Mesh) -> None:
    for path in ("/v1/chat/completions", "/openai/v1/chat/completions"):
        body = json.dumps({"image": "x" * (8 << 20), "model": "tiny"}).encode()
        assert (await shared.http.post(path, content=body)).json()["bytes"] == len(body)


async def test_internal_headers_can_not_be_forged(shared: conftest.Mesh) -> None:
    forged = {"x-mesh-model": "cold", "x-mesh-turn": "llm", "x-mesh-client": "root"}
    headers = (await chat(shared, headers=forged)).json()["headers"]
    assert (headers["x-mesh-model"], headers.get("x-mesh-client")) == ("tiny", None)
    assert fault(await chat(shared, "nobody", headers=forged))[0] == 404
    assert (
        (
            await shared.http.post(
                "/v2/models/iris/infer", headers={**forged, "x-mesh-model": "tiny"}
            )
        )
        .json()["by"]
        .startswith("default")
    )
    assert (await shared.http.get("/nothing", headers={"x-mesh-turn": "answered"})).json() == {
        "error": "nothing is served under /nothing"
    }


async def test_a_held_request_goes_on_once_admitted(llms: conftest.Mesh) -> None:
    body = {"model": "frosty", "text": "x" * 1000}
    answer = later(chat(llms, "frosty", text=body["text"]))
    await until_waiting(llms, 1)
    assert llms.echoes["hold"].asked == [("POST", f"model=cold&bytes={len(json.dumps(body))}")]
    await llms.gateway.apply(ready(llms))
    assert not answer.done()
    llms.echoes["hold"].admit()
    seen = (await answer).json()
    assert (seen["by"], seen["bytes"]) == ("cold/0", len(json.dumps(body)))
    assert (await chat(llms, "cold")).json()["by"] == "cold/0"
    assert len(llms.echoes["hold"].asked) == 1


async def test_held_requests_of_8_mib_and_of_sessions_go_on_too(llms: conftest.Mesh) -> None:
    big = later(chat(llms, "cold", headers={"x-session-id": "s"}, text="x" * (8 << 20)))
    bare = later(llms.http.get("/openai/v1/responses/r1?model=cold"))
    await until_waiting(llms, 2)
    await llms.gateway.apply(ready(llms))
    for _ in range(2):
        llms.echoes["hold"].admit()
    assert ((await big).json()["by"], (await bare).json()["path"]) == ("cold/0", "/v1/responses/r1")
    assert (await big).json()["bytes"] > 8 << 20


async def test_held_requests_are_answered_in_the_order_in_which_they_are_admitted(
    llms: conftest.Mesh,
) -> None:
    answers = []
    for number in range(5):
        answers.append(later(chat(llms, "cold", headers={"x-number": str(number)})))
        await until_waiting(llms, number + 1)
    await llms.gateway.apply(ready(llms))
    for answer in answers:
        llms.echoes["hold"].admit()
        await answer
    assert [seen["headers"]["x-number"] for seen in llms.echoes["cold/0"].seen] == list("01234")


async def test_a_rejected_request_gets_the_controllers_answer(llms: conftest.Mesh) -> None:
    answer = later(chat(llms, "cold"))
    await until_waiting(llms, 1)
    llms.echoes["hold"].turn_away()
    assert ((await answer).status_code, (await answer).content) == (503, engines.ERROR)
    headers = (await answer).headers
    assert (headers["retry-after"], headers["x-more"], headers["content-type"]) == (
        "17",
        "1",
        "application/json",
    )
    assert int(headers["content-length"]) == len(engines.ERROR)


async def test_a_client_that_leaves_ends_its_hold(llms: conftest.Mesh) -> None:
    controller = llms.echoes["hold"]

    async def leave(size: int) -> None:
        holds, waiting = controller.left + 1, later(chat(llms, "cold", text="x" * size))
        await support.wait_until_async(
            lambda: len(controller.asked) == holds, what="the request is held"
        )
        waiting.cancel()
        began_s = time.monotonic()
        await support.wait_until_async(lambda: controller.left == holds, what="the hold ends")
        assert time.monotonic() - began_s < 1

    for size in (10, 4 << 20):
        await leave(size)


async def test_without_a_controller_requests_are_refused_at_once(llms: conftest.Mesh) -> None:
    for controller in (None, model.Endpoint("n1", "127.0.0.1", 1, f"{llms.run_dir}/nobody.sock")):
        await llms.gateway.apply(replace(llms.snapshot, controller=controller))
        answer = await chat(llms, "cold")
        assert (fault(answer)[:2], answer.headers["retry-after"]) == (
            (503, "service_unavailable"),
            "1",
        )
        assert "`cold` is not ready" in fault(answer)[2]["message"]
        assert (await chat(llms)).status_code == 200


async def test_a_silent_controller_is_awaited_little_longer_than_the_limit(
    llms: conftest.Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshserve.gateway.envoy.llm_routes.WAIT_SLACK_S", 0.3)
    await llms.gateway.apply(with_llm(llms, "cold", wait_s_max=0.2))
    answer = await chat(llms, "cold")
    assert (fault(answer)[:2], answer.headers["retry-after"]) == ((503, "service_unavailable"), "1")


async def test_a_controller_that_dies_ends_held_requests(llms: conftest.Mesh) -> None:
    async def die(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_unix_server(die, f"{llms.run_dir}/doomed.sock"):
        controller = model.Endpoint("n1", "127.0.0.1", 1, f"{llms.run_dir}/doomed.sock")
        await llms.gateway.apply(replace(llms.snapshot, controller=controller))
        answer = await chat(llms, "cold")
    assert (fault(answer)[:2], answer.headers["retry-after"]) == ((503, "service_unavailable"), "1")


async def test_a_removed_llm_is_unknown(llms: conftest.Mesh) -> None:
    await llms.gateway.apply(replace(llms.snapshot, llms=()))
    assert fault(await chat(llms))[:2] == (404, "model_not_found")
    await llms.gateway.apply(
        replace(
            llms.snapshot,
            llms=(snapshots.LlmRoute("new", ("new",), llms.snapshot.llms[0].members),),
        )
    )
    assert (await chat(llms, "new")).json()["by"].startswith("tiny/")
    assert fault(await chat(llms))[0] == 404


async def test_a_client_may_send_its_body_slowly(shared: conftest.Mesh) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for part in (b'{"mod', b'el":"ti', b'ny"}'):
            yield part
            await asyncio.sleep(0.01)

    assert (
        (await shared.http.post("/v1/chat/completions", content=slowly()))
        .json()["by"]
        .startswith("tiny/")
    )
    async with httpx.AsyncClient(http1=True, base_url=shared.http.base_url) as http:
        answer = await http.post(
            "/v1/chat/completions", content=b'{"model":"tiny"}', headers={"expect": "100-continue"}
        )
    assert answer.status_code == 200
