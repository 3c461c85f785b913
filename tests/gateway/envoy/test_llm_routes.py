"""Which replica answers, by name, load and session, and the paths around LLMs, in a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs

import httpx
import pytest
import pytest_asyncio

from meshserve import tasks
from meshserve.core.values import snapshots
from meshserve.gateway.envoy import llm_routes
from tests import support
from tests.gateway import conftest, engines
from tests.gateway.conftest import first_field

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

chat, fault = engines.chat, engines.fault
BARE = ["/tokenize", "/detokenize", "/score", "/rerank", "/pooling", "/classify", "/v2/rerank"]
OF_OPENAI = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/a/b/c",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    async with engines.running_llms(str(tmp_path_factory.mktemp("gw"))) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def llms(run_dir: str) -> AsyncIterator[conftest.Mesh]:
    """One of the test's own."""
    async with engines.running_llms(run_dir) as started:
        yield started


async def test_equal_snapshots_give_equal_routes() -> None:
    first, again = (json.dumps(llm_routes.by_model(engines.routes("/run"))) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("path", [*OF_OPENAI, *BARE])
async def test_every_engine_path_is_routed_by_model(shared: conftest.Mesh, path: str) -> None:
    for asked in (path, f"{path}?x=1"):
        answer = (await chat(shared, path=asked)).json()
        assert (answer["by"].partition("/")[0], answer["path"]) == ("tiny", path)


@pytest.mark.parametrize("path", OF_OPENAI)
async def test_the_prefixed_api_is_the_same(shared: conftest.Mesh, path: str) -> None:
    assert (await chat(shared, path=f"/openai{path}")).json()["path"] == path


@pytest.mark.parametrize("name", ["org/tiny 1", "modèle-日本", "lora"])
async def test_aliases_and_adapters_lead_to_their_llm(shared: conftest.Mesh, name: str) -> None:
    for session in ({}, {"x-session-id": "a"}):
        # Only the gateway says what is an alias.
        answer = (await chat(shared, name, headers={"x-mesh-is-alias": "yes"} | session)).json()
        assert answer["by"].startswith("tiny/")
        assert answer["headers"]["x-mesh-model"].encode("latin-1").decode() == name
        assert ("x-mesh-is-alias" in answer["headers"]) == (name in engines.ALIASES)


async def test_an_llm_may_have_any_name(llms: conftest.Mesh) -> None:
    names = (
        "org/tiny 1:latest",
        "modèle-日本",
        'a"b\\c',
        "a%2Fb",
        "50%",
        "llm-x",
        "x.version_text",
    )
    members = llms.snapshot.llms[0].members
    await llms.gateway.apply(
        replace(
            llms.snapshot, llms=tuple(snapshots.LlmRoute(name, (name,), members) for name in names)
        )
    )
    held = tuple(snapshots.LlmRoute(name, (name,), is_held=True) for name in names)
    for name in names:
        for headers in ({}, {"x-session-id": "a"}):
            assert (await chat(llms, name, headers=headers)).json()["by"].startswith("tiny/")
    await llms.gateway.apply(replace(llms.snapshot, llms=held))
    for name in names:
        answer = tasks.spawn(chat(llms, name), "chat", is_awaited=True)
        await support.wait_until_async(lambda: llms.echoes["hold"].waiting, what="it waits")
        assert parse_qs(llms.echoes["hold"].asked[-1][1])["model"] == [name]
        llms.echoes["hold"].turn_away()
        assert (await answer).status_code == 503


async def test_a_session_always_gets_the_same_replica(shared: conftest.Mesh) -> None:
    homes = {}
    for number in range(60):
        headers = {"x-session-id": f"session-{number}"}
        seen = {
            (await chat(shared, name, headers=headers)).json()["by"]
            for name in ("tiny", "lora", "tiny")
        }
        assert len(seen) == 1
        homes[number] = seen.pop()
    assert set(Counter(homes.values())) == {"tiny/0", "tiny/1", "tiny/2"}


async def test_sessions_of_replicas_that_stay_stay(llms: conftest.Mesh) -> None:
    async def homes() -> list[str]:
        answers = [await chat(llms, headers={"x-session-id": str(number)}) for number in range(40)]
        return [answer.json()["by"] for answer in answers]

    before = await homes()
    tiny, *others = llms.snapshot.llms
    unready = replace(tiny, members=(replace(tiny.members[0], ready=False), *tiny.members[1:]))
    for changed in (unready, replace(tiny, members=tiny.members[1:])):
        await llms.gateway.apply(replace(llms.snapshot, llms=(changed, *others)))
        after = await homes()
        stayed = [old == new for old, new in zip(before, after, strict=True) if old != "tiny/0"]
        # With fewer replicas each has more points on the ring, so that a few sessions move
        # between the replicas that stay.
        assert sum(stayed) > 0.7 * len(stayed)
        assert "tiny/0" not in after


async def test_the_least_busy_replica_answers(llms: conftest.Mesh) -> None:
    replicas = [llms.echoes[f"tiny/{number}"] for number in range(3)]
    streams: list[asyncio.Future[httpx.Response]] = []

    def has_come() -> bool:
        return sum(len(replica.seen) for replica in replicas) == len(streams)

    for _ in range(6):
        streams.append(
            tasks.spawn(chat(llms, headers={"x-say": "stream"}), "chat", is_awaited=True)
        )
        await support.wait_until_async(has_come, what="the request has come")
    assert [len(replica.seen) for replica in replicas] == [2, 2, 2]
    for _ in range(2):
        replicas[0].words.put_nowait("")
    await support.wait_until_async(
        lambda: sum(stream.done() for stream in streams) == 2, what="two have ended"
    )
    assert {(await chat(llms)).json()["by"] for _ in range(5)} == {"tiny/0"}
    for replica in replicas[1:] * 2:
        replica.words.put_nowait("")
    assert {answer.text for answer in await asyncio.gather(*streams)} == {"data: [DONE]\n\n"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/openai/v1/chat/completions"])
async def test_each_token_arrives_before_the_next_is_made(llms: conftest.Mesh, path: str) -> None:
    content = json.dumps({"model": "tiny", "stream": True})
    headers = {"x-say": "stream", "accept-encoding": "gzip, br", "x-session-id": "one"}
    server = llms.echoes[(await chat(llms, headers={"x-session-id": "one"})).json()["by"]]
    async with (
        llms.http.stream("POST", path, content=content, headers=headers) as answer,
    ):
        assert (answer.headers["content-type"], answer.headers.get("content-encoding")) == (
            "text/event-stream",
            None,
        )
        chunks = answer.aiter_raw()
        for word in ("one", "t", "ö"):
            server.words.put_nowait(word)
            assert await anext(chunks) == f"data: {word}\n\n".encode()
        server.words.put_nowait("")
        assert b"".join([chunk async for chunk in chunks]) == b"data: [DONE]\n\n"


async def test_a_stream_of_a_removed_replica_goes_on_to_its_end(llms: conftest.Mesh) -> None:
    tiny, *others = llms.snapshot.llms
    only = replace(tiny, members=tiny.members[:1])
    await llms.gateway.apply(replace(llms.snapshot, llms=(only, *others)))
    for changed in (
        replace(only, members=tiny.members[1:]),
        replace(only, members=(), is_held=True),
        None,
    ):
        await llms.gateway.apply(replace(llms.snapshot, llms=(only, *others)))
        async with llms.http.stream(
            "POST", "/v1/completions", content=b'{"model":"tiny"}', headers={"x-say": "stream"}
        ) as answer:
            await llms.gateway.apply(
                replace(
                    llms.snapshot, llms=tuple(others) if changed is None else (changed, *others)
                )
            )
            for word in ("one", "two", ""):
                llms.echoes["tiny/0"].words.put_nowait(word)
            assert await answer.aread() == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"


async def test_a_client_that_stops_reading_does_not_block_others(llms: conftest.Mesh) -> None:
    only = replace(llms.snapshot.llms[0], members=llms.snapshot.llms[0].members[:1])
    await llms.gateway.apply(replace(llms.snapshot, llms=(only,)))
    content, headers = b'{"model":"tiny"}', {"x-say": "big"}
    async with llms.http.stream(
        "POST", "/v1/completions", content=content, headers=headers
    ) as unread:
        for _ in range(20):
            assert (await chat(llms)).json()["by"] == "tiny/0"
        assert len(await unread.aread()) > 20_000_000


async def test_a_client_that_leaves_cancels_its_request_at_the_engine(
    shared: conftest.Mesh,
) -> None:
    replicas = [shared.echoes[f"tiny/{number}"] for number in range(3)]
    before = sum(replica.abandoned for replica in replicas)
    seen = sum(len(replica.seen) for replica in replicas)
    hanging = tasks.spawn(chat(shared, headers={"x-say": "hang"}), "chat", is_awaited=True)
    await support.wait_until_async(
        lambda: sum(len(replica.seen) for replica in replicas) > seen, what="it has come"
    )
    hanging.cancel()
    await support.wait_until_async(
        lambda: sum(replica.abandoned for replica in replicas) == before + 1,
        timeout_s=1,
        what="it is missed",
    )


async def test_an_engines_own_errors_pass_unchanged(shared: conftest.Mesh) -> None:
    answer = await chat(shared, headers={"x-say": "unavailable"})
    assert (answer.status_code, answer.json(), answer.headers.get("retry-after")) == (
        503,
        {"error": "draining"},
        None,
    )
    assert (await chat(shared, headers={"x-say": "crash"})).text == "Internal Server Error"


async def test_a_request_that_may_have_reached_an_engine_is_not_retried(
    shared: conftest.Mesh,
) -> None:
    count = sum(len(shared.echoes[f"tiny/{number}"].seen) for number in range(3))
    await chat(shared, headers={"x-say": "unavailable"})
    assert sum(len(shared.echoes[f"tiny/{number}"].seen) for number in range(3)) == count + 1


async def test_an_unreachable_replica_is_skipped(llms: conftest.Mesh) -> None:
    tiny, *others = llms.snapshot.llms
    dead = tuple(engines.replica(llms.run_dir, "dead", number) for number in range(2))
    await llms.gateway.apply(
        replace(llms.snapshot, llms=(replace(tiny, members=(*dead, tiny.members[0])), *others))
    )
    for headers in ({}, {"x-session-id": "a"}, {"x-session-id": "b"}, {"x-session-id": "c"}):
        assert (await chat(llms, headers=headers)).json()["by"] == "tiny/0"


async def test_an_unreachable_replica_is_skipped_where_the_others_are_busier(
    llms: conftest.Mesh,
) -> None:
    tiny, *others = llms.snapshot.llms
    alive, dead = llms.echoes["tiny/0"], engines.replica(llms.run_dir, "dead", 0)
    alone = replace(tiny, members=tiny.members[:1])
    await llms.gateway.apply(replace(llms.snapshot, llms=(alone, *others)))
    stream = tasks.spawn(chat(llms, headers={"x-say": "stream"}), "chat", is_awaited=True)
    await support.wait_until_async(lambda: len(alive.seen) == 1, what="the stream has begun")
    both = replace(tiny, members=(dead, tiny.members[0]))
    await llms.gateway.apply(replace(llms.snapshot, llms=(both, *others)))
    # It is the least busy one, as nothing reaches it: each retry would choose it again.
    assert {(await chat(llms)).json()["by"] for _ in range(5)} == {"tiny/0"}
    alive.words.put_nowait("")
    await stream


async def test_without_a_replica_the_refusal_says_when_to_retry(shared: conftest.Mesh) -> None:
    for headers in ({}, {"x-session-id": "one"}):
        answer = await chat(shared, "gone", headers=headers)
        status, code, error = fault(answer)
        assert (status, code, error["type"]) == (503, "service_unavailable", "server_error")
        assert answer.headers["retry-after"] == "1"


async def test_an_unready_replica_gets_no_request_even_if_it_is_the_only_one(
    llms: conftest.Mesh,
) -> None:
    tiny, *others = llms.snapshot.llms
    unready = tuple(replace(replica, ready=False) for replica in tiny.members)
    await llms.gateway.apply(replace(llms.snapshot, llms=(replace(tiny, members=unready), *others)))
    assert fault(await chat(llms))[0] == 503


async def test_models_are_listed_by_the_controller(shared: conftest.Mesh) -> None:
    for path in ("/v1/models", "/openai/v1/models", "/v1/models?limit=1"):
        answer = (await shared.http.get(path)).json()
        assert (answer["by"], answer["path"]) == ("controller", "/v1/models")


@pytest.mark.parametrize(
    "written",
    ["tiny", "lora", "cold", "org/tiny%201", "org%2Ftiny%201", "mod%C3%A8le-%E6%97%A5%E6%9C%AC"],
)
async def test_the_controller_describes_one_llm(shared: conftest.Mesh, written: str) -> None:
    for api in ("/v1", "/openai/v1"):
        answer = (await shared.http.get(f"{api}/models/{written}")).json()
        assert (answer["by"], answer["path"]) == ("controller", f"/v1/models/{written}")


@pytest.mark.parametrize("name", ["iris", "tin", "tinyy", "huge"])
async def test_other_models_keep_their_pools(shared: conftest.Mesh, name: str) -> None:
    pool = "big" if name == "huge" else "default"
    for method, path in (
        ("GET", f"/v1/models/{name}"),
        ("POST", f"/v1/models/{name}:predict"),
        ("POST", "/v1/models/tiny:predict"),
    ):
        answer = (await shared.http.request(method, path)).json()
        assert answer["path"] == path
        assert answer["by"].startswith("default" if "tiny" in path else pool)
    assert (await shared.http.get(f"/openai/v1/models/{name}")).json()["by"] == "controller"


async def test_an_llms_name_means_nothing_to_the_paths_of_small_models(
    shared: conftest.Mesh,
) -> None:
    assert (await shared.call(first_field(b"tiny")))["by"].startswith("default")
    assert (await shared.http.post("/v2/models/tiny/infer")).json()["by"].startswith("default")


@pytest.mark.parametrize(
    "path",
    [
        "/mesh/internal/held?model=cold&bytes=1",
        "/mesh/internal",
        "/mesh/v1/../internal/held",
        "/mesh/v1/%2e%2e/internal/held",
        "/v1/models/../../mesh/internal/held",
        "/openai/v1/../../mesh/internal/held",
        "//mesh/internal/held",
    ],
)
async def test_the_hold_endpoint_can_not_be_reached_from_outside(
    shared: conftest.Mesh, path: str
) -> None:
    raw = shared.http.base_url.copy_with(raw_path=path.encode())
    assert (await shared.http.post(raw)).status_code == 404
    assert shared.echoes["hold"].asked == []


KEYS = (snapshots.ApiKey("shop", "shop-key"), snapshots.ApiKey("ops", "ops-key", admin=True))


async def test_keys_are_required_and_not_passed_on(run_dir: str) -> None:
    async with engines.running_llms(run_dir, keys=KEYS) as mesh:
        for path in (
            "/v1/chat/completions",
            "/openai/v1/embeddings",
            "/tokenize",
            "/v1/models",
            "/openai/v1/models/tiny",
        ):
            for headers in ({}, {"authorization": "Bearer wrong"}):
                answer = await mesh.http.post(path, content=b'{"model":"tiny"}', headers=headers)
                assert fault(answer)[:2] == (401, "invalid_api_key")
        for headers in ({"authorization": "Bearer shop-key"}, {"x-api-key": "ops-key"}):
            seen = (await chat(mesh, headers=headers)).json()["headers"]
            assert seen["x-mesh-client"] == ("shop" if "authorization" in headers else "ops")
            assert not {"authorization", "x-api-key"} & set(seen)
            assert (await mesh.http.get("/v1/models", headers=headers)).json()["by"] == "controller"


async def test_without_keys_a_clients_key_is_not_passed_on(shared: conftest.Mesh) -> None:
    seen = (await chat(shared, headers={"authorization": "Bearer sk-of-another-house"})).json()[
        "headers"
    ]
    assert "authorization" not in seen
