"""LLMs in a real mesh with fake engines."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tritonclient.http
import yaml

from tests import support
from tests.e2e import engines, running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow]

IDLE_S = 3.0
SAID = "Say hello."


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("llms")
    weights = folder / "weights"
    weights.mkdir()
    (weights / "weights.bin").write_text("any")
    common = {"uri": str(weights), "runtime": "forking", "start_timeout_s": 60}
    document = {
        "pools": {"default": {"workers": 1, "memory": "512MiB"}},
        "models": [{"name": "linear", "uri": str(traffic.write_model(folder / "linear.onnx", 2))}],
        "llms": [
            {
                "name": "steady",
                "aliases": ["org/steady"],
                "adapters": [{"name": "steady-sql", "uri": str(weights)}],
                **common,
            },
            {"name": "rare", "replicas": {"min": 0}, "idle_timeout_s": IDLE_S, **common},
            {"name": "huge", "device": "cuda", "tensor_parallel_size": 8, **common},
            {
                "name": "picky",
                "replicas": {"min": 0},
                "idle_timeout_s": IDLE_S,
                "held": {"requests": 2},
                **common,
            },
        ],
    }
    variables: dict[str, Any] = engines.installed(folder / "site")
    with running.mesh(document, **variables) as started:
        support.wait_until(lambda: state(started, "steady") == "ready", 60.0, "steady is ready")
        yield started


@pytest.fixture
def client(mesh: running.Mesh) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://{mesh.listen}/v1", api_key="none", max_retries=0, timeout=60
    ) as openai_client:
        yield openai_client


def llm_status(mesh: running.Mesh, name: str) -> dict[str, Any]:
    return next(entry for entry in mesh.status()["llms"] if entry["name"] == name)


def state(mesh: running.Mesh, name: str) -> str:
    return str(llm_status(mesh, name)["state"])


def ask(client: openai.OpenAI, name: str, **more: Any) -> Any:
    return client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": SAID}], max_tokens=8, **more
    )


def group_of(pid: int) -> set[int]:
    """Return the processes in a replica's process group."""
    return {
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and _leader(path) == pid
    }


def _leader(process: Path) -> int:
    try:
        after_name = (process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if after_name[0] == "Z" else int(after_name[2])


def test_up_returns_before_llms_are_ready_and_names_them(mesh: running.Mesh) -> None:
    assert (
        "are still starting: steady, huge" in mesh.log() or "is still starting: huge" in mesh.log()
    )
    support.wait_until(
        lambda: mesh.status()["state"] == "ready", support.WAIT_S, "gateways know of steady"
    )


def test_a_chat_is_answered_whole_and_streamed_alike(client: openai.OpenAI) -> None:
    whole = ask(client, "steady").choices[0].message.content
    streamed = "".join(
        chunk.choices[0].delta.content or "" for chunk in ask(client, "steady", stream=True)
    )
    assert (len(whole.split()), streamed) == (8, whole)


def test_tokens_arrive_one_by_one(client: openai.OpenAI) -> None:
    arrived = [
        time.monotonic()
        for _ in client.completions.create(model="steady", prompt="x", max_tokens=10, stream=True)
    ]
    assert len(arrived) == 10
    assert arrived[-1] - arrived[0] > 5 * 0.02


@pytest.mark.parametrize("name", ["org/steady", "steady-sql"])
def test_aliases_and_adapters_are_answered_by_their_llm(client: openai.OpenAI, name: str) -> None:
    assert ask(client, name).model == name


def test_llms_are_listed_with_their_aliases_and_adapters(client: openai.OpenAI) -> None:
    assert {entry.id for entry in client.models.list()} == {
        "steady",
        "org/steady",
        "steady-sql",
        "rare",
        "huge",
        "picky",
    }
    assert client.models.retrieve("rare").owned_by == "meshserve"


def test_small_models_are_served_beside_llms(mesh: running.Mesh) -> None:
    with tritonclient.http.InferenceServerClient(mesh.listen) as triton:
        rows = tritonclient.http.InferInput("x", [1, 8], "FP32")
        rows.set_data_from_numpy(np.ones((1, 8), np.float32))
        assert triton.infer("linear", [rows]).get_response()["model_name"] == "linear"


def test_an_unknown_name_is_openais_404(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "nobody")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_hold_endpoint_is_not_reachable_from_outside(mesh: running.Mesh, method: str) -> None:
    assert (
        mesh.http.request(method, "/mesh/internal/held", params={"model": "steady"}).status_code
        == 404
    )


def test_a_held_request_ends_with_its_client(mesh: running.Mesh) -> None:
    body = {"model": "picky", "prompt": "x"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"http://{mesh.listen}/v1/completions", json=body, timeout=0.5)
    support.wait_until(lambda: llm_status(mesh, "picky")["held"] == 0, 20.0, "nobody waits")


def test_an_llm_without_gpus_has_a_reason(mesh: running.Mesh) -> None:
    assert llm_status(mesh, "huge")["state"] == "starting"
    assert "it needs 8 GPUs and the cluster has 0" in llm_status(mesh, "huge")["reason"]
    assert "it needs 8 GPUs" in mesh.cli("status").stdout


def test_fifty_first_requests_are_one_start_and_fifty_answers(
    mesh: running.Mesh, client: openai.OpenAI
) -> None:
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(lambda _: ask(client, "rare").choices[0].message.content, range(50))
        )
    assert len(set(answers)) == 1
    assert (llm_status(mesh, "rare")["starts"], llm_status(mesh, "rare")["turned_away"]) == (1, 0)
    assert llm_status(mesh, "rare")["start_s"] >= engines.START_S


def test_an_idle_llm_ends_with_its_processes(mesh: running.Mesh, client: openai.OpenAI) -> None:
    ask(client, "rare")
    pid = llm_status(mesh, "rare")["replicas"][0]["pid"]
    assert len(group_of(pid)) >= 2
    support.wait_until(lambda: state(mesh, "rare") == "idle", IDLE_S + 30, "rare is idle")
    assert (llm_status(mesh, "rare")["replicas"], group_of(pid)) == ([], set())
    assert ask(client, "rare").model == "rare"


def test_too_many_held_requests_get_a_retry_delay(mesh: running.Mesh) -> None:
    support.wait_until(lambda: state(mesh, "picky") == "idle", IDLE_S + 30, "picky is idle")

    def post(_: Any) -> Any:
        body = {"model": "picky", "prompt": "x", "max_tokens": 2}
        return httpx.post(f"http://{mesh.listen}/v1/completions", json=body, timeout=60)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert "2 requests wait for it already" in refused.json()["error"]["message"]


def test_a_killed_engine_is_restarted(mesh: running.Mesh, client: openai.OpenAI) -> None:
    (before,) = llm_status(mesh, "steady")["replicas"]
    os.kill(before["pid"], signal.SIGKILL)
    support.wait_until(
        lambda: not group_of(before["pid"]), support.WAIT_S, "its processes are gone"
    )
    support.wait_until(
        lambda: llm_status(mesh, "steady")["replicas"][0]["pid"] not in (0, before["pid"]),
        60,
        "steady is back",
    )
    assert ask(client, "steady").model == "steady"
    assert llm_status(mesh, "steady")["replicas"][0]["restarts"] == before["restarts"] + 1


def test_a_restarted_controller_keeps_running_engines(
    mesh: running.Mesh, client: openai.OpenAI
) -> None:
    (before,) = llm_status(mesh, "steady")["replicas"]
    os.kill(mesh.status()["controller"]["pid"], signal.SIGKILL)
    assert ask(client, "steady").model == "steady"
    support.wait_until(lambda: _restarted(mesh), 60, "the controller is back")
    (after,) = llm_status(mesh, "steady")["replicas"]
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)


def _restarted(mesh: running.Mesh) -> Any:
    answer = mesh.http.get("/mesh/v1/status")
    return (
        answer.status_code == 200
        and answer.json()["controller"]["restarts"] == 1
        and answer.json()["state"] == "ready"
    )


def test_llms_are_in_the_metrics(mesh: running.Mesh) -> None:
    text = mesh.http.get("/metrics").text
    assert 'meshserve_llm_state{llm="steady",state="ready",process="controller"} 1.0' in text
    assert "meshserve_llm_starts_total" in text


def test_moving_an_alias_restarts_nothing(mesh: running.Mesh, client: openai.OpenAI) -> None:
    support.wait_until(lambda: state(mesh, "steady") == "ready", 60, "steady is ready")
    (before,) = llm_status(mesh, "steady")["replicas"]
    file = mesh.home / "config.yaml"
    document = yaml.safe_load(file.read_text())
    steady = next(llm for llm in document["llms"] if llm["name"] == "steady")
    steady["aliases"] = ["org/other"]
    file.write_text(yaml.safe_dump(document))
    assert "llm steady changed (aliases)" in mesh.cli("up", file).stdout
    assert ask(client, "org/other").model == "org/other"
    with pytest.raises(openai.NotFoundError):
        ask(client, "org/steady")
    (after,) = llm_status(mesh, "steady")["replicas"]
    assert after["pid"] == before["pid"]


def test_weights_that_change_on_disk_are_another_engine_and_no_request_fails(
    mesh: running.Mesh, client: openai.OpenAI
) -> None:
    support.wait_until(lambda: state(mesh, "steady") == "ready", 60, "steady is ready")
    (before,) = llm_status(mesh, "steady")["replicas"]
    document = yaml.safe_load((mesh.home / "config.yaml").read_text())
    weights = Path(next(llm["uri"] for llm in document["llms"] if llm["name"] == "steady"))
    (weights / "weights.bin").write_text("others")
    said = mesh.cli("up", mesh.home / "config.yaml").stdout
    assert any("llm steady changed" in line and "weights" in line for line in said.splitlines())

    def is_another() -> bool:
        assert ask(client, "steady").choices[0].message.content
        pids = [one["pid"] for one in llm_status(mesh, "steady")["replicas"]]
        return state(mesh, "steady") == "ready" and before["pid"] not in pids

    support.wait_until(is_another, 60, "the engine of the new weights answers alone")
