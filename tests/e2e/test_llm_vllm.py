"""Real vLLM in a real mesh: cold starts, small models beside it, and faults."""

from __future__ import annotations

import concurrent.futures
import functools
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import psutil
import pytest
import yaml

from tests import support
from tests.e2e import llm_world, running
from tests.faults import traffic
from tests.llm import hub

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(400)]

FIRST_REQUESTS = 50
SHARED = re.compile("/dev/shm/(psm|vllm)_")
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 16,
    "temperature": 0,
}
TEXT: dict[str, Any] = {
    "model": "tiny",
    "prompt": "def wait(",
    "max_tokens": llm_world.TOKENS,
    "temperature": 0,
}


def is_ready(mesh: running.Mesh, name: str) -> bool:
    return bool(llm_world.said(mesh, name)["state"] == "ready")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> llm_world.Weights:
    return llm_world.make(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def models_hub(weights: llm_world.Weights) -> Iterator[Any]:
    """The address of a stub server, and the requests that it got."""
    with hub.serving(weights.rare) as served:
        yield served


@pytest.fixture(scope="module")
def mesh(
    weights: llm_world.Weights, models_hub: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[running.Mesh]:
    surroundings = {
        "HF_ENDPOINT": models_hub[0],
        "HF_HOME": str(tmp_path_factory.mktemp("fetched")),
    }
    with running.mesh(
        llm_world.document(weights, tmp_path_factory.mktemp("small")), **surroundings
    ) as started:
        for name in ("tiny", "vectors"):
            support.wait_until(
                functools.partial(is_ready, started, name), llm_world.START_S, f"{name} is ready"
            )
        support.wait_until(
            lambda: started.status()["state"] == "ready", 10.0, "gateways know of them"
        )
        yield started


@pytest.fixture(scope="module")
def client(mesh: running.Mesh) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://{mesh.listen}/v1",
        api_key="none",
        max_retries=0,
        timeout=llm_world.START_S,
    ) as openai_client:
        yield openai_client


def token_ids(mesh: running.Mesh, name: str) -> Any:
    """Return the tokens that the mesh generates for the prompts."""
    body = {
        "model": name,
        "max_tokens": llm_world.TOKENS,
        "min_tokens": llm_world.TOKENS,
        "temperature": 0,
        "return_token_ids": True,
    }
    answers = [
        mesh.http.post("/v1/completions", json=body | {"prompt": prompt}).json()
        for prompt in llm_world.PROMPTS
    ]
    return [answer["choices"][0]["token_ids"] for answer in answers]


def post(mesh: running.Mesh, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"http://{mesh.listen}/v1/completions", json=body, timeout=llm_world.START_S)


def metric(mesh: running.Mesh, name: str, **labels: Any) -> float:
    """Return the value of the first series with these labels on the gateway's page."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = mesh.http.get("/metrics").text.splitlines()
    outcome = (
        line
        for line in lines
        if line.startswith(name + "{") and all(label in line for label in wanted)
    )
    return float(next(outcome).rpartition(" ")[2])


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    assert {item.id for item in client.models.list()} == {
        "tiny",
        "org/tiny",
        "tiny-sql",
        "vectors",
        "rare",
        "spoilt",
    }
    assert client.models.retrieve("tiny").id == "tiny"


def test_a_streamed_chat_has_the_same_text_and_its_usage(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**CHAT)
    chunks = list(
        client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    )
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == whole.choices[0].message.content != ""
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == CHAT["max_tokens"]
    assert len(chunks) > CHAT["max_tokens"] / 2


def test_a_streamed_completion_has_the_same_text_by_any_name(client: openai.OpenAI) -> None:
    whole = client.completions.create(**TEXT)
    streamed = client.completions.create(**TEXT | {"model": "org/tiny"}, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == whole.choices[0].text != ""


def test_greedy_tokens_are_those_of_transformers(
    mesh: running.Mesh, weights: llm_world.Weights
) -> None:
    assert token_ids(mesh, "tiny") == llm_world.tokens(weights.tiny)


def test_tokens_of_an_adapter_are_those_of_peft(
    mesh: running.Mesh, weights: llm_world.Weights
) -> None:
    outcome = token_ids(mesh, "tiny-sql")
    assert outcome == llm_world.tokens(weights.tiny, weights.adapter)
    assert all(one != other for one, other in zip(outcome, token_ids(mesh, "tiny"), strict=True))


def test_embeddings_are_those_of_transformers(
    client: openai.OpenAI, weights: llm_world.Weights
) -> None:
    outcome = [
        item.embedding
        for item in client.embeddings.create(model="vectors", input=list(llm_world.PROMPTS)).data
    ]
    assert outcome == [
        pytest.approx(vector, abs=1e-4) for vector in llm_world.vectors(weights.vectors)
    ]


PATHS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "tiny", "input": "hello there", "max_output_tokens": 4},
    "/v1/messages": {"model": "tiny", "messages": CHAT["messages"], "max_tokens": 4},
    "/tokenize": {"model": "tiny", "prompt": "def wait("},
    "/detokenize": {"model": "tiny", "tokens": [5, 6, 7]},
    "/v1/embeddings": {"model": "vectors", "input": "a"},
    "/pooling": {"model": "vectors", "input": "a"},
    "/score": {"model": "vectors", "queries": "a", "documents": ["b", "c"]},
    "/v1/rerank": {"model": "vectors", "query": "a", "documents": ["b", "c"]},
}


@pytest.mark.parametrize("path", PATHS)
def test_every_path_of_vllm_is_routed_by_the_model_in_its_body(
    mesh: running.Mesh, path: str
) -> None:
    answer = mesh.http.post(path, json=PATHS[path])
    assert answer.status_code == 200, answer.text
    assert mesh.http.post(path, json=PATHS[path] | {"model": "nobody"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (json.dumps(TEXT | {"model": "nobody"}), 404),
        ('{"model": "tiny"', 400),
        (json.dumps({"prompt": "x"}), 400),
        (json.dumps(TEXT | {"max_tokens": -1}), 400),
        (json.dumps(TEXT | {"prompt": "word " * 600}), 400),
        (json.dumps(TEXT | {"prompt": "x" * llm_world.REQUEST_BYTES_MAX}), 413),
    ],
    ids=[
        "unknown model",
        "no JSON",
        "no model",
        "negative max_tokens",
        "longer than the context",
        "over the limit",
    ],
)
def test_a_wrong_request_is_an_openai_error(mesh: running.Mesh, body: str, status: int) -> None:
    answer = mesh.http.post(
        "/v1/completions", content=body, headers={"content-type": "application/json"}
    )
    error = answer.json()["error"]
    assert (
        answer.status_code,
        {"message", "type", "param", "code"} <= error.keys(),
        bool(error["message"]),
    ) == (status, True, True)


@pytest.mark.parametrize("name", ["tiny", "org/tiny", "tiny-sql"])
def test_an_answer_has_the_name_that_was_called(client: openai.OpenAI, name: str) -> None:
    asked = CHAT | {"model": name, "max_tokens": 2}
    assert client.chat.completions.create(**asked).model == name
    assert {chunk.model for chunk in client.chat.completions.create(**asked, stream=True)} == {name}


def test_paths_that_a_model_lacks_say_so_to_openais_client(client: openai.OpenAI) -> None:
    for call in (
        lambda: client.embeddings.create(model="tiny", input="a"),
        lambda: client.audio.speech.create(model="org/tiny", input="a", voice="alloy"),
        lambda: client.chat.completions.create(**CHAT | {"model": "vectors"}),
        lambda: client.models.retrieve("org/nobody"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert isinstance(caught.value.body, dict)
        assert "The model `" in caught.value.body["message"]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"model": "nobody"}, anthropic.NotFoundError),
        ({"model": "vectors"}, anthropic.NotFoundError),
        ({"max_tokens": -4}, anthropic.BadRequestError),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, anthropic.BadRequestError),
    ],
)
def test_a_wrong_message_is_an_anthropic_error(
    mesh: running.Mesh, changes: dict[str, Any], kind: type[anthropic.APIStatusError]
) -> None:
    request: dict[str, Any] = {"model": "tiny", "messages": CHAT["messages"], "max_tokens": 4}
    with (
        anthropic.Anthropic(
            base_url=f"http://{mesh.listen}", api_key="none", max_retries=0
        ) as anthropics,
        pytest.raises(kind) as caught,
    ):
        anthropics.messages.create(**request | changes)
    body = caught.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    assert body["error"]["type"] in {"not_found_error", "invalid_request_error"}


def test_an_adapter_is_added_while_the_engine_runs(
    mesh: running.Mesh, weights: llm_world.Weights
) -> None:
    (before,) = llm_world.said(mesh, "tiny")["replicas"]
    file = mesh.home / "config.yaml"
    document = yaml.safe_load(file.read_text())
    document["llms"][0]["adapters"].append({"name": "late-sql", "uri": str(weights.adapter)})
    file.write_text(yaml.safe_dump(document))
    assert "llm tiny changed (adapters)" in mesh.cli("up", file).stdout
    asked = TEXT | {"model": "late-sql", "max_tokens": 1}
    support.wait_until(lambda: post(mesh, asked).status_code == 200, 30.0, "it is served")
    assert token_ids(mesh, "late-sql") == llm_world.tokens(weights.tiny, weights.adapter)
    (after,) = llm_world.said(mesh, "tiny")["replicas"]
    assert after["pid"] == before["pid"]


def test_a_client_that_leaves_frees_the_engine(mesh: running.Mesh) -> None:
    before = metric(mesh, "vllm:generation_tokens_total", model="tiny")
    stream, _ = llm_world.opened(mesh)
    stream.__exit__(None, None, None)
    counts = [before - 1]

    def is_still() -> bool:
        counts.append(metric(mesh, "vllm:generation_tokens_total", model="tiny"))
        return (
            counts[-2] == counts[-1]
            and metric(mesh, "vllm:num_requests_running", model="tiny") == 0
        )

    support.wait_until(is_still, 20.0, "nothing runs for it, and no more tokens are made")
    assert counts[-1] - before < 16 * llm_world.LONG / 2


def test_a_client_that_stops_reading_delays_no_other(
    mesh: running.Mesh, record_property: Callable[[str, object], None]
) -> None:
    expected = post(mesh, TEXT).json()["choices"]
    took_s = []
    with _silent(mesh), _silent(mesh):
        for _ in range(20):
            began_s = time.monotonic()
            assert post(mesh, TEXT).json()["choices"] == expected
            took_s.append(time.monotonic() - began_s)
    record_property("slowest answer s", max(took_s))
    assert max(took_s) < llm_world.STALL_S
    support.wait_until(
        lambda: metric(mesh, "vllm:num_requests_running", model="tiny") == 0,
        20.0,
        "nothing runs for them any more",
    )


def _silent(mesh: running.Mesh) -> Any:
    """Open a connection that asks for a megabyte and reads none of it."""
    host, _, port = mesh.listen.partition(":")
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    taken.connect((host, int(port)))
    body = json.dumps(
        TEXT
        | {
            "max_tokens": llm_world.LONG,
            "ignore_eos": True,
            "stream": True,
            "logprobs": 5,
            "n": 4,
            "temperature": 1,
        }
    )
    head = (
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    taken.sendall((head + body).encode())
    return taken


def test_fifty_first_requests_are_one_start_and_fifty_answers(
    mesh: running.Mesh,
    client: openai.OpenAI,
    weights: llm_world.Weights,
    models_hub: Any,
    record_property: Callable[[str, object], None],
) -> None:
    before = metric(mesh, "meshserve_llm_starts_total", llm="rare")
    with concurrent.futures.ThreadPoolExecutor(FIRST_REQUESTS) as pool:
        asked = [
            pool.submit(
                lambda: client.completions.create(**TEXT | {"model": "rare", "logprobs": 0})
            )
            for _ in range(FIRST_REQUESTS)
        ]
        support.wait_until(
            lambda: llm_world.said(mesh, "rare")["held"] == FIRST_REQUESTS, 10.0, "all wait"
        )
        began_s = time.monotonic()
        answers = [item.result().choices[0] for item in asked]
        record_property("answered after s", time.monotonic() - began_s)
    assert {answer.text for answer in answers} == {
        client.completions.create(**TEXT | {"model": "rare"}).choices[0].text
    }
    assert token_ids(mesh, "rare") == llm_world.tokens(weights.rare)
    assert [
        item
        for item in models_hub[1]
        if item.startswith("GET") and item.endswith("/model.safetensors")
    ], "it was fetched by its name"
    rare = llm_world.said(mesh, "rare")
    assert (before, rare["starts"], rare["turned_away"], rare["replicas"][0]["restarts"]) == (
        0,
        1,
        0,
        0,
    )
    assert metric(mesh, "meshserve_llm_starts_total", llm="rare") == 1


async def test_two_llms_and_twenty_small_models_answer_at_once(
    mesh: running.Mesh, client: openai.OpenAI, record_property: Callable[[str, object], None]
) -> None:
    expected = {
        name: client.completions.create(**TEXT | {"model": name}).choices[0].text
        for name in ("tiny", "rare")
    }
    assert expected["tiny"] != expected["rare"]
    numbers = iter(range(10**9))
    async with (
        traffic.flowing(mesh.listen, lambda: next(numbers) % llm_world.SMALL_MODELS, 100) as flow,
        openai.AsyncOpenAI(
            base_url=f"http://{mesh.listen}/v1", api_key="none", max_retries=0, timeout=60
        ) as at_once,
    ):
        asked = [(name, await _begun(at_once, name)) for name in ("tiny", "rare") * 8]
        await support.wait_until_async(
            lambda: flow.answered >= llm_world.SMALL_MODELS,
            timeout_s=20.0,
            what="each small model has answered",
        )
        texts = [
            (name, "".join([chunk.choices[0].text async for chunk in stream]))
            for name, stream in asked
        ]
    assert texts == [(name, expected[name]) for name in ("tiny", "rare") * 8]
    record_property("answers of small models meanwhile", flow.answered)
    assert flow.faults == []


async def _begun(at_once: Any, name: str) -> Any:
    return await at_once.completions.create(**TEXT | {"model": name}, stream=True)


def test_an_idle_llm_ends_with_its_processes_and_memory(
    mesh: running.Mesh, record_property: Callable[[str, object], None]
) -> None:
    post(mesh, TEXT | {"model": "rare"})
    processes = llm_world.family(llm_world.said(mesh, "rare")["replicas"][0]["pid"])
    shared = {
        mapped.path
        for item in processes
        for mapped in item.memory_maps()
        if SHARED.match(mapped.path)
    }
    private_bytes = sum(item.memory_full_info().uss for item in processes)
    assert len(processes) >= 2
    assert private_bytes > 500 << 20
    support.wait_until(
        lambda: llm_world.said(mesh, "rare")["state"] == "idle",
        llm_world.IDLE_S + 20,
        "rare is idle",
    )
    record_property("processes and private bytes that went", (len(processes), private_bytes))
    support.wait_until(
        lambda: not any(map(_is_alive, processes)),
        20.0,
        "the guard has seen that all others are gone",
    )
    assert [path for path in shared if Path(path).exists()] == []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_engines_metrics_have_the_model_and_the_replica(mesh: running.Mesh) -> None:
    assert metric(mesh, "vllm:generation_tokens_total", model="tiny", replica="tiny/0") > 100
    assert (
        metric(mesh, "vllm:time_to_first_token_seconds_count", model="tiny", replica="tiny/0") > 1
    )
    assert metric(mesh, "vllm:kv_cache_usage_perc", model="vectors", replica="vectors/0") >= 0
    assert metric(mesh, "meshserve_llm_state", llm="tiny", state="ready") == 1
    assert metric(mesh, "meshserve_llm_held_requests", llm="rare") == 0
    assert metric(mesh, "meshserve_llm_start_seconds_sum", llm="rare") > 1


def test_the_command_line_shows_llms(mesh: running.Mesh) -> None:
    post(mesh, TEXT)
    text = mesh.cli("status").stdout
    assert [
        name for name in ("tiny", "vectors", "rare", "ttft p50", "kv used") if name not in text
    ] == []
    printed = {
        item["name"]: item for item in json.loads(mesh.cli("status", "--json").stdout)["llms"]
    }
    assert (printed["tiny"]["state"], printed["rare"]["state"]) == ("ready", "idle")
    assert printed["tiny"]["start_s"] > 1
    (replica,) = printed["tiny"]["replicas"]
    assert replica["requests"] > 10
    assert 0 < replica["ttft_p50_s"] <= replica["ttft_p95_s"]


@pytest.fixture(scope="module")
def struck(mesh: running.Mesh) -> llm_world.Struck:
    return llm_world.strike(mesh)


def test_a_killed_engine_ends_its_streams(
    struck: llm_world.Struck, record_property: Callable[[str, object], None]
) -> None:
    record_property("streams ended after s", struck.killed.after_s)
    assert struck.killed.after_s < 2.0
    for event, last in struck.killed.events:
        assert json.loads(event.removeprefix("data: "))["error"]["message"]
        assert last == "data: [DONE]"


def test_a_stopped_engine_is_noticed(
    struck: llm_world.Struck, record_property: Callable[[str, object], None]
) -> None:
    record_property("noticed after s", struck.noticed_after_s)
    assert llm_world.STALL_S - 1 < struck.noticed_after_s < llm_world.STALL_S + 5
    assert struck.stopped.status_code == 500
    assert struck.stopped.json()["error"]["message"]


def test_truncated_weights_are_the_reason_of_a_failed_start(
    mesh: running.Mesh, struck: llm_world.Struck
) -> None:
    assert (struck.failed.status_code, int(struck.failed.headers["retry-after"]) > 0) == (503, True)
    spoilt = llm_world.said(mesh, "spoilt")
    assert "afetensor" in struck.failed.json()["error"]["message"]
    assert "afetensor" in spoilt["reason"]
    assert spoilt["state"] in {"failed", "starting"}
    assert "afetensor" in mesh.cli("status").stdout


ANSWERED = {
    "tiny": ("/v1/completions", TEXT),
    "vectors": ("/v1/embeddings", {"model": "vectors", "input": "def wait("}),
}


@pytest.mark.parametrize("name", ANSWERED)
@pytest.mark.usefixtures("struck")
def test_a_failed_engine_is_restarted(
    mesh: running.Mesh, name: str, record_property: Callable[[str, object], None]
) -> None:
    """Until then requests get 503 with Retry-After."""
    began_s = time.monotonic()

    def is_answered() -> bool:
        answer = httpx.post(f"http://{mesh.listen}{path}", json=body, timeout=llm_world.START_S)
        assert answer.status_code == 200 or (
            answer.status_code,
            int(answer.headers["retry-after"]) > 0,
        ) == (503, True), answer.text
        assert answer.status_code == 200 or answer.json()["error"]["message"]
        time.sleep(0.1)
        return answer.status_code == 200

    path, body = ANSWERED[name]
    support.wait_until(is_answered, llm_world.START_S, "it answers again")
    assert llm_world.said(mesh, name)["replicas"][0]["restarts"] == 1
    record_property("waited for it s", time.monotonic() - began_s)
