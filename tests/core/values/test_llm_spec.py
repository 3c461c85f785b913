from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from meshserve.core.values import llm_spec
from tests.core import llm_world


def test_clients_may_call_an_llm_by_its_name_its_aliases_and_its_adapters() -> None:
    spec = llm_world.spec("a", aliases=("b", "c"), adapters=(llm_spec.Adapter("d", "/d"),))
    assert spec.names == ("a", "b", "c", "d")


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 6), ("cpu", 0)])
def test_a_replica_takes_a_gpu_for_each_part_of_it(device: str, gpus: int) -> None:
    assert (
        llm_world.spec("a", tensor_parallel_size=2, pipeline_parallel_size=3, device=device).gpus
        == gpus
    )


WEIGHTS = llm_spec.Weights("1", "host", "2")
SPEC = llm_world.spec("a", weights=WEIGHTS)
MESH_FIELDS: dict[str, Any] = {
    "adapters": (llm_spec.Adapter("sql", "/sql"),),
    "aliases": ("other",),
    "stall_timeout_s": 7.0,
    "replicas_min": 0,
    "replicas_max": 7,
    "idle_timeout_s": 7.0,
    "residency_s_min": 7.0,
    "sleep_level": 2,
    "start_timeout_s": 7.0,
    "held": llm_spec.HoldLimits(7),
}


@pytest.mark.parametrize("field", MESH_FIELDS)
def test_an_engine_serves_a_spec_that_differs_in_its_times_or_limits(field: str) -> None:
    assert SPEC.is_same_engine(dataclasses.replace(SPEC, **{field: MESH_FIELDS[field]}))


@pytest.mark.parametrize(
    "field", [field.name for field in dataclasses.fields(SPEC) if field.name not in MESH_FIELDS]
)
def test_an_engine_does_not_serve_a_spec_that_differs_otherwise(field: str) -> None:
    other: dict[str, Any] = {field: llm_spec.Weights("else") if field == "weights" else "else"}
    assert not SPEC.is_same_engine(dataclasses.replace(SPEC, **other))


@pytest.mark.parametrize(
    ("other", "is_same"),
    [
        (WEIGHTS, True),
        (None, True),
        (WEIGHTS._replace(times="3"), False),
        (WEIGHTS._replace(content="3"), False),
        (WEIGHTS._replace(host="elsewhere", times="3"), True),
        (WEIGHTS._replace(host="elsewhere", content="3"), False),
    ],
)
def test_weights_are_told_apart_where_that_is_possible(
    other: llm_spec.Weights | None, is_same: bool
) -> None:
    assert llm_spec.are_same(WEIGHTS, other) is llm_spec.are_same(other, WEIGHTS) is is_same


def test_a_spec_gets_its_weights_by_their_source() -> None:
    adapters = (llm_spec.Adapter("sql", "/sql"), llm_spec.Adapter("tone", "/tone"))
    spec = llm_world.spec("a", adapters=adapters, engine={"revision": "v1"})
    assert spec.source == llm_spec.WeightsSource("/models/a", "v1")
    assert len(spec.sources) == 3
    weights = {spec.source: WEIGHTS, adapters[1].source: llm_spec.Weights("3")}
    bound = spec.with_weights(weights)
    assert bound.weights == WEIGHTS
    assert [adapter.weights for adapter in bound.adapters] == [None, llm_spec.Weights("3")]
