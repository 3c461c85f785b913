"""The metrics of all processes, also if some do not answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshserve.core.values import model, snapshots
from meshserve.gateway.envoy import envoy_admin
from meshserve.gateway.sidecar import metrics_fanout
from meshserve.protocol import asgi_server, sockets
from tests.gateway import conftest, echo
from tests.gateway.conftest import member

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]


def exposing(text: str, status: int = 200, delay_s: float = 0.0) -> Any:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await asyncio.sleep(delay_s)
        await echo.answer(send, status, text.encode(), [(b"content-type", b"text/plain")])

    return app


def gauge(worker: str) -> str:
    comments = "# HELP resident Models in memory.\n# TYPE resident gauge\n"
    return f'{comments}resident{{worker="{worker}"}} 1\n'


def values(page: str, family: str) -> dict[str, float]:
    return {
        sample.labels.get("worker")
        or sample.labels.get("asked")
        or sample.labels["process"]: sample.value
        for parsed in text_string_to_metric_families(page)
        for sample in parsed.samples
        if sample.name == family
    }


@pytest.fixture
def snap(run_dir: str) -> snapshots.GatewaySnapshot:
    pools = {"default": (member(run_dir, "default-0"), member(run_dir, "default-1"))}
    return snapshots.GatewaySnapshot("127.0.0.1:1", "n1", pools)


async def test_the_page_has_all_that_answer_and_counts_the_others(
    run_dir: str, snap: snapshots.GatewaySnapshot
) -> None:
    envoy = envoy_admin.EnvoyAdmin(f"{run_dir}/no-envoy.sock")
    scraper = metrics_fanout.MetricsFanout(envoy)
    async with echo.serving(exposing(gauge("default-0")), f"{run_dir}/default-0.sock"):
        for _ in range(2):
            page = await scraper.page(snap)
    await envoy.close()
    assert values(page, "resident") == {"default-0": 1}
    assert values(page, "meshserve_scrape_failures_total") == {"default-1": 2, "gateway": 2}


async def test_an_error_page_and_a_slow_answer_are_left_out(
    run_dir: str, snap: snapshots.GatewaySnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_fanout, "TIMEOUT_S", 0.2)
    envoy = envoy_admin.EnvoyAdmin(f"{run_dir}/no-envoy.sock")
    async with (
        echo.serving(exposing(gauge("default-0"), status=500), f"{run_dir}/default-0.sock"),
        echo.serving(exposing(gauge("default-1"), delay_s=1.0), f"{run_dir}/default-1.sock"),
    ):
        page = await metrics_fanout.MetricsFanout(envoy).page(snap)
    await envoy.close()
    assert values(page, "resident") == {}
    assert values(page, "meshserve_scrape_failures_total") == {
        "default-0": 1,
        "default-1": 1,
        "gateway": 1,
    }


async def test_workers_on_other_nodes_are_asked_by_port(
    run_dir: str, snap: snapshots.GatewaySnapshot
) -> None:
    envoy = envoy_admin.EnvoyAdmin(f"{run_dir}/no-envoy.sock")
    served = await asgi_server.serve(exposing(gauge("far-0")), [sockets.tcp_socket("127.0.0.1")])
    far = snapshots.RingMember(
        "far-0", model.Endpoint("n2", "127.0.0.1", served.port, "/run/of/another/node.sock")
    )
    page = await metrics_fanout.MetricsFanout(envoy).page(replace(snap, pools={"default": (far,)}))
    await served.stop()
    await envoy.close()
    assert values(page, "resident") == {"far-0": 1}


async def test_an_engines_series_get_labels_for_replica_and_model(
    run_dir: str, snap: snapshots.GatewaySnapshot
) -> None:
    envoy = envoy_admin.EnvoyAdmin(f"{run_dir}/no-envoy.sock")
    name = "vllm:num_requests_running"
    text = f'# TYPE {name} gauge\n{name}{{engine="0",model_name="/models/x"}} 2\n'
    replicas = tuple(
        replace(member(run_dir, f"tiny-{number}"), worker_id=f"tiny/{number}")
        for number in range(3)
    )
    async with (
        echo.serving(exposing(text), f"{run_dir}/tiny-0.sock"),
        echo.serving(exposing(text), f"{run_dir}/tiny-1.sock"),
    ):
        page = await metrics_fanout.MetricsFanout(envoy).page(
            replace(snap, pools={}, llms=(snapshots.LlmRoute("tiny", ("tiny", "t"), replicas),))
        )
    await envoy.close()
    series = [
        sample.labels
        for parsed in text_string_to_metric_families(page)
        for sample in parsed.samples
        if sample.name[:5] == "vllm:"
    ]
    assert series == [
        {"engine": "0", "model_name": "/models/x", "model": "tiny", "replica": f"tiny/{number}"}
        for number in range(2)
    ]
    assert values(page, "meshserve_scrape_failures_total") == {"tiny/2": 1, "gateway": 1}


async def test_the_whole_page_is_valid_and_has_envoys_figures(mesh: conftest.Mesh) -> None:
    await mesh.call(b"")
    page = (await mesh.http.get("/metrics")).text
    types = [line for line in page.splitlines() if line.startswith("# TYPE")]
    assert len({line.split()[2] for line in types}) == len(types) > 50
    assert values(page, "envoy_http_downstream_rq_total")["gateway"] > 0


async def test_a_scrape_is_an_ordinary_page(mesh: conftest.Mesh) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"http://{mesh.snapshot.listen}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
