from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import parser

from meshserve.core.values import catalog, model
from meshserve.worker import worker
from tests import support
from tests.worker import helpers


async def numbers(http: Any) -> Any:
    """Every sample by its name and labels."""
    text = (await http.get("/metrics")).raise_for_status().text
    families = parser.text_string_to_metric_families(text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def found(said: Any, name: Any, **labels: Any) -> Any:
    return said[name, frozenset({"worker": "pool-0", **labels}.items())]


async def test_metrics_count_what_happened(http: Any) -> None:
    await http.post("/v1/models/doubled:predict", json={"instances": [[1, 2], [3, 4]]})
    await http.post("/v1/models/doubled:predict", json={"instances": [[-1, 2]]})
    await http.post("/v1/models/nobody:predict", json={})
    said = await numbers(http)
    assert found(said, "meshserve_requests_total") == 3
    assert found(said, "meshserve_request_duration_seconds_count") == 3
    assert found(said, "meshserve_request_duration_seconds_bucket", le="+Inf") == 3
    assert found(said, "meshserve_request_failures_total", kind="ModelNotFound") == 1
    assert found(said, "meshserve_request_failures_total", kind="ModelRaised") == 1
    assert (found(said, "meshserve_cache_misses_total"), found(said, "meshserve_loads_total")) == (
        1,
        1,
    )
    assert (
        found(said, "meshserve_load_failures_total"),
        found(said, "meshserve_evictions_total"),
    ) == (0, 0)
    of_model = {"model": "doubled", "version": "1"}
    assert found(said, "meshserve_model_requests_total", outcome="success", **of_model) == 1
    assert found(said, "meshserve_model_requests_total", outcome="failure", **of_model) == 1
    assert (
        found(said, "meshserve_model_bytes", device="host", **of_model)
        == found(said, "meshserve_booked_bytes", device="host")
        > 0
    )
    assert found(said, "meshserve_budget_bytes", device="host") == helpers.MEMORY.host_bytes
    assert found(said, "meshserve_private_bytes") > 0
    assert (found(said, "meshserve_mapped_bytes"), found(said, "meshserve_kept_bytes")) == (0, 0)


async def test_names_may_hold_anything(http: Any, pool_worker: Any, storage: Any) -> None:
    name = 'a"b\\c\nd größe'
    helpers.apply(pool_worker, *helpers.declared(helpers.spec(name, storage.put("doubled"))))
    await pool_worker.ensure_loaded(helpers.spec(name, "").id, 20)
    said = await numbers(http)
    assert found(said, "meshserve_model_bytes", device="host", model=name, version="1") > 0


async def test_an_unloaded_model_has_no_bytes(http: Any, pool_worker: Any) -> None:
    await http.get("/v2/models/doubled")
    id_ = helpers.spec("doubled", "").id
    pool_worker.host.unload(id_)
    await support.wait_until_async(
        lambda: not pool_worker.host.footprint(id_).host_bytes, 10, "it is unloaded"
    )
    assert not [name for name, _ in await numbers(http) if name == "meshserve_model_bytes"]


async def test_a_withdrawn_model_leaves_no_series(
    http: httpx.AsyncClient, pool_worker: worker.PoolWorker, storage: helpers.FakeStorage
) -> None:
    uri = storage.put("doubled")
    ids = [model.ModelId(f"dynamic-{number}") for number in range(20)]
    helpers.apply(pool_worker, *helpers.declared(*(helpers.spec(id_.name, uri) for id_ in ids)))
    for id_ in ids:
        path = f"/v1/models/{id_.name}:predict"
        (await http.post(path, json={"instances": [[1, 2]]})).raise_for_status()
    helpers.apply(pool_worker, *(catalog.ModelWithdrawn(id_) for id_ in ids))
    await http.post("/v1/models/doubled:predict", json={"instances": [[1, 2]]})
    pool_worker.report()
    assert "dynamic" not in (await http.get("/metrics")).text
    assert set(pool_worker.stats()) == {model.ModelId("doubled")}


async def test_each_metric_of_a_worker_is_documented(http: httpx.AsyncClient) -> None:
    document = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    names = re.findall(r"^# TYPE (\w+)", (await http.get("/metrics")).text, re.MULTILINE)
    assert len(names) > 15
    assert [name for name in names if f"`{name}" not in document] == []
