from __future__ import annotations

from typing import Any

import pytest

from meshserve import config, errors
from meshserve.config import desired_state
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import (
    catalog,
    desired,
    llm_spec,
    model,
    registry_contents,
    snapshots,
)
from tests.core import world

CAPACITY = cluster_control.WorkerCapacity(4, 2)
DOCUMENT = {
    "gateway": {"listen": "0.0.0.0:9", "keys": [{"client": "c", "key": "k", "admin": True}]},
    "cache": {"path": "/cache", "size": 10, "artifact_bytes_max": 5},
    "pools": {
        "default": {
            "workers": 3,
            "memory": 100,
            "eviction": "lru",
            "allocator": "system",
            "idle_unload_s": 7.0,
            "load_timeout_s": 9.0,
        },
        "gpu": {"device": "cuda", "gpu_memory": 50, "memory": 200},
    },
    "models": [{"name": "a", "uri": "/a", "aliases": ["b"], "pinned": True}],
    "repositories": [
        {"path": "/r", "watch": False, "pool": "gpu", "trust": True},
        {"uri": "file:///b/r"},
    ],
}


@pytest.fixture
def state() -> Any:
    return desired_state.from_config(config.parse(DOCUMENT), CAPACITY)


def test_a_pool_becomes_settings_of_its_workers(state: Any) -> None:
    pool = state.pool("default")
    assert (pool.workers, pool.load_timeout_s) == (3, 9.0)
    assert pool.settings == desired.WorkerSettings(
        memory=model.Footprint(100),
        eviction="lru",
        allocator="system",
        idle_unload_s=7.0,
        cache_path="/cache",
        cache_bytes_max=10,
        artifact_bytes_max=5,
    )
    assert state.pool("gpu").settings.memory == model.Footprint(200, 50)


def test_the_gateway_has_its_settings(state: Any) -> None:
    assert state.gateway == desired.GatewaySettings(
        "0.0.0.0:9", 64 << 20, (snapshots.ApiKey("c", "k", admin=True),), file_roots=()
    )


def test_models_and_aliases_originate_from_the_configuration(state: Any) -> None:
    assert state.models == (
        world.spec("a", uri="/a", pinned=True, load_timeout_s=9.0, origin=model.FROM_CONFIG),
    )
    assert state.aliases == (desired.DesiredAlias("b", "a", "1", model.FROM_CONFIG),)


def test_repositories_are_named_by_their_place(state: Any) -> None:
    assert state.repositories == (
        desired.RepositorySettings("/r", watch=False, pool="gpu", trust=True),
        desired.RepositorySettings("/b/r"),
    )


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (4, 4), (200, 16)])
def test_auto_is_a_worker_for_each_core_up_to_a_limit(cores: int, workers: int) -> None:
    state = desired_state.from_config(config.parse({}), cluster_control.WorkerCapacity(cores, 0))
    assert [pool.workers for pool in state.pools] == [workers]


def test_auto_is_a_worker_for_each_gpu(state: Any) -> None:
    assert state.pool("gpu").workers == 2
    with pytest.raises(errors.ConfigInvalid, match="no GPU"):
        desired_state.from_config(config.parse(DOCUMENT), cluster_control.WorkerCapacity(4, 0))


def test_the_document_gives_the_same_state(state: Any) -> None:
    assert desired_state.from_document(state.document, CAPACITY) == state


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"poolz": {}}'])
def test_a_broken_document_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigInvalid):
        desired_state.from_document(text, CAPACITY)


def test_a_registry_without_a_document_gives_an_empty_state() -> None:
    assert (
        desired_state.from_registry(
            registry_contents.RegistryContents(), CAPACITY, is_needed=True
        ).pools
        == ()
    )


def test_an_unreadable_document_keeps_the_models_of_the_configuration() -> None:
    declared = tuple(
        catalog.ModelDeclared(world.spec(str(origin), origin=origin))
        for origin in (model.FROM_CONFIG, model.FROM_API)
    )
    contents = registry_contents.RegistryContents(declared, '{"retired": 1}')
    assert desired_state.from_registry(contents, CAPACITY, is_needed=False).models == (
        declared[0].spec,
    )
    with pytest.raises(errors.ConfigInvalid):
        desired_state.from_registry(contents, CAPACITY, is_needed=True)


@pytest.mark.parametrize(
    ("workers", "gpus", "words"), [("auto", 0, "no GPU"), (1, 0, "no GPU"), (3, 2, "2 GPUs")]
)
def test_a_gpu_pool_without_the_gpus_is_refused(workers: int | str, gpus: int, words: str) -> None:
    document = {"pools": {"gpu": {"device": "cuda", "gpu_memory": 50, "workers": workers}}}
    with pytest.raises(errors.ConfigInvalid, match=words):
        desired_state.from_config(config.parse(document), cluster_control.WorkerCapacity(8, gpus))


@pytest.mark.parametrize(("gpus", "device"), [(0, "cpu"), (2, "cuda")])
def test_an_llm_runs_on_gpus_if_the_cluster_has_any(gpus: int, device: str) -> None:
    state = desired_state.from_config(
        config.parse({"llms": [{"name": "l", "uri": "/l"}]}),
        cluster_control.WorkerCapacity(4, gpus),
    )
    assert state.llms == (llm_spec.LlmSpec("l", "/l", device=device),)


def test_an_llm_that_needs_too_many_gpus_is_kept() -> None:
    document = {"llms": [{"name": "l", "uri": "/l", "device": "cuda", "tensor_parallel_size": 8}]}
    assert (
        desired_state.from_config(config.parse(document), cluster_control.WorkerCapacity(4, 0))
        .llms[0]
        .gpus
        == 8
    )


def test_llms_cannot_share_without_gpus() -> None:
    document = {"llms": [{"name": "l", "uri": "/l", "share": "g"}]}
    with pytest.raises(errors.ConfigInvalid, match="the cluster has no GPU"):
        desired_state.from_config(config.parse(document), cluster_control.WorkerCapacity(4, 0))


def test_the_defaults_are_those_of_the_core() -> None:
    """The core states them for its own tests, the schema for users."""
    settings = config.parse({"models": [{"name": "a", "uri": "/a"}], "state_dir": "/s"})
    state = desired_state.from_config(settings, cluster_control.WorkerCapacity(1, 0))
    assert state.gateway == desired.GatewaySettings()
    assert state.models == (world.spec("a", uri="/a", origin=model.FROM_CONFIG),)
    assert state.pools == (desired.PoolSettings(desired.WorkerSettings(cache_path="/s/cache")),)
