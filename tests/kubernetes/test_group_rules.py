from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import group_rules
from tests.kubernetes import meshes

Json = dict[str, Any]
CPU = {"pools": {"default": {"workers": 2}}}
GPU = {"pools": {"default": {"workers": 2, "device": "cuda", "gpu_memory": "1GiB"}}}
LLM = {"name": "a", "uri": "hf://a/b"}


def with_group(content: Json, name: str, **section: Any) -> Json:
    return {**content, "kubernetes": {"groups": {name: section}}}


REFUSED = [
    (with_group(CPU, "pool-defualt"), "groups.pool-defualt", "did you mean"),
    (with_group(CPU, "pool-default", gpus=1), "groups.pool-default.gpus", "has no GPUs"),
    (with_group(GPU, "pool-default", gpus=0), "groups.pool-default.gpus", "need a GPU each"),
    (
        with_group(CPU, "pool-default", replicas={"min": 2, "max": 1}),
        "groups.pool-default.replicas.min",
        "min is 2, but max only 1",
    ),
    (
        with_group(CPU, "pool-default", replicas={"min": 0, "max": 0}),
        "groups.pool-default.replicas.max",
        "serves nothing",
    ),
    (
        with_group(CPU, "pool-default", replicas={"min": 3, "max": 3}),
        "groups.pool-default.replicas",
        "only 2 workers",
    ),
    (with_group(CPU, "pool-default", memory="4GiB"), "groups.pool-default.memory", "is less than"),
    (
        with_group(CPU, "pool-default", node_selector={"a": "b c"}),
        "groups.pool-default.node_selector.a",
        "no value of a label",
    ),
    (
        with_group(CPU, "pool-default", replicas={"min": 0, "max": 1}),
        "groups",
        "no gateway takes requests",
    ),
    ({"pools": {"a" * 40: {}, "A.b": {}, "a-b": {}, "default": {}}}, "pools.A.b", "another pool"),
    ({**CPU, "llms": [{**LLM, "name": "a" * 60}]}, "llms[0]", "63 letters"),
    ({**CPU, "llms": [{**LLM, "name": "ü"}]}, "llms[0]", "would be named 'llm-'"),
    (
        with_group({**CPU, "llms": [{**LLM, "device": "cpu"}]}, "llm-a", gpus=1),
        "groups.llm-a.gpus",
        "a CPU group has no GPUs",
    ),
    (
        with_group({**CPU, "llms": [{**LLM, "tensor_parallel_size": 4}]}, "llm-a", gpus=2),
        "groups.llm-a.gpus",
        "needs 4 GPUs of one pod",
    ),
    (
        with_group({**CPU, "llms": [{**LLM, "device": "cuda"}]}, "llm-a", gpus=0),
        "groups.llm-a.gpus",
        "needs 1 GPUs",
    ),
    (
        with_group(
            {**CPU, "llms": [{**LLM, "replicas": {"min": 1, "max": 4}}]},
            "llm-a",
            replicas={"min": 1, "max": 2},
        ),
        "groups.llm-a.replicas.max",
        "up to 4 replicas",
    ),
]


@pytest.mark.parametrize(("content", "field", "reason"), REFUSED)
def test_a_fault_names_the_field_and_the_reason(content: Json, field: str, reason: str) -> None:
    results = meshes.faults(content)
    assert [fault for fault in results if field in fault.split(": ")[0] and reason in fault], (
        results
    )


ACCEPTED = [
    CPU,
    GPU,
    with_group(CPU, "pool-default", replicas={"min": 1, "max": 2}),
    with_group(CPU, "pool-default", replicas={"min": 1, "max": 1}, memory="12GiB"),
    with_group(GPU, "pool-default", replicas={"min": 1, "max": 1}, gpus=2),
    {**CPU, "llms": [{**LLM, "replicas": {"min": 0, "max": 4}}]},
    with_group({**CPU, "llms": [LLM]}, "llm-a", gpus=0),
    {**CPU, "llms": [{**LLM, "share": "x"}, {**LLM, "name": "b", "share": "x"}]},
]


@pytest.mark.parametrize("content", ACCEPTED)
def test_what_fits_has_no_fault(content: Json) -> None:
    assert list(group_rules.faults(meshes.settings(content))) == []
