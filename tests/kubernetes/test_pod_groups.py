from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import pod_groups
from tests.kubernetes import meshes

GIB = 1 << 30


def test_each_pool_and_each_llm_has_a_group_and_those_that_share_have_one() -> None:
    results = {group.name: group for group in meshes.groups(meshes.FULL)}
    assert list(results) == [
        "pool-default",
        "pool-vision-gpu",
        "llm-qwen-qwen3",
        "llm-small",
        "share-night",
    ]
    replicas = {name: (group.replicas_min, group.replicas_max) for name, group in results.items()}
    assert replicas["pool-default"] == (4, 4)
    assert replicas["llm-qwen-qwen3"] == (0, 3)
    gpus = {name: group.gpus for name, group in results.items()}
    assert gpus == {
        "pool-default": 0,
        "pool-vision-gpu": 1,
        "llm-qwen-qwen3": 2,
        "llm-small": 0,
        "share-night": 1,
    }


def test_the_default_pool_has_a_pod_though_nobody_names_it() -> None:
    (group,) = meshes.groups({"models": []})
    assert (group.name, group.replicas_min, group.is_fixed) == ("pool-default", 1, True)


def test_a_pod_has_room_for_its_workers_shared_memory_and_ray() -> None:
    (group,) = meshes.groups({"pools": {"default": {"workers": 1, "memory": "6GiB"}}})
    assert group.memory_bytes == 8 * GIB
    content = {
        "pools": {"default": {"workers": 5, "memory": "6GiB"}},
        "kubernetes": {"groups": {"pool-default": {"replicas": {"min": 2, "max": 2}}}},
    }
    (group,) = meshes.groups(content)
    assert group.memory_bytes == 3 * 6 * GIB + 2 * GIB


def test_auto_is_one_worker_a_pod() -> None:
    content = {"kubernetes": {"groups": {"pool-default": {"replicas": {"min": 3, "max": 3}}}}}
    settings = meshes.settings({"models": [], **content})
    (group,) = pod_groups.plan(settings)
    assert pod_groups.worker_bounds(settings.pools["default"], group) == (3, 3)


@pytest.mark.parametrize(
    ("workers", "replicas", "pods", "bounds", "in_pod"),
    [
        ({"min": 1, "max": 4}, None, (1, 4), (1, 4), 1),
        ({"min": 0, "max": 4}, None, (0, 4), (0, 4), 1),
        ({"min": 2, "max": 6}, {"min": 1, "max": 2}, (1, 2), (2, 6), 3),
        ({"min": 1}, {"min": 1, "max": 5}, (1, 5), (1, 5), 1),
        ({"min": 3}, None, (3, 3), (3, 3), 1),
    ],
)
def test_the_pods_of_a_pool_that_follows_its_load_follow_it_too(
    workers: dict[str, int],
    replicas: dict[str, int] | None,
    pods: tuple[int, int],
    bounds: tuple[int, int],
    in_pod: int,
) -> None:
    content: dict[str, Any] = {"pools": {"default": {"workers": workers, "memory": "6GiB"}}}
    if replicas:
        content["kubernetes"] = {"groups": {"pool-default": {"replicas": replicas}}}
    settings = meshes.settings({"models": [], **content})
    (group,) = pod_groups.plan(settings)
    assert (group.replicas_min, group.replicas_max) == pods
    assert pod_groups.worker_bounds(settings.pools["default"], group) == bounds
    assert group.memory_bytes == in_pod * 6 * GIB + 2 * GIB


def test_an_llm_is_on_gpus_unless_something_says_otherwise() -> None:
    llm = {"name": "a", "uri": "hf://a/b"}
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"llms": [llm]}, True),
        ({"llms": [{**llm, "device": "cuda"}]}, True),
        ({"llms": [{**llm, "device": "cpu"}]}, False),
        ({"llms": [llm], "kubernetes": {"groups": {"llm-a": {"gpus": 0}}}}, False),
    ]
    for content, is_on_gpus in cases:
        settings = meshes.settings(content)
        assert pod_groups.is_on_gpus(settings, settings.llms[0]) is is_on_gpus
