"""Build one replica of an LLM in its own process, its weights and adapters fetched first."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import NamedTuple

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.launch import process_start
from meshserve.llm import engine_lookup, llm_server
from meshserve.logs import log_files
from meshserve.storage import artifact_store, hub, llm_weights

LOG_NAME_MAX = 60


class CacheLimits(NamedTuple):
    """The folder of fetched artifacts, its size limit, and the size limit of one artifact."""

    path: str
    size_bytes_max: int
    artifact_bytes_max: int


async def build_llm_server(
    logs: log_files.LogPlan,
    cache: CacheLimits,
    address: model.ServerAddress,
    spec: llm_spec.LlmSpec,
    backend: llm_spec.ExecutorBackend,
) -> llm_server.LlmServer:
    """Build one replica of an LLM, its weights and adapters fetched to this node.

    Raises LoadFailed if they cannot be fetched or the engine does not exist.
    """
    process_start.begin_process(logs, address.id.replace("/", "-")[-LOG_NAME_MAX:])
    # Looked up before anything is fetched: a misspelt engine must not cost a download.
    make_engine = engine_lookup.find(spec.runtime)
    # Opened only if something is fetched: local weights and Hugging Face's need no cache.
    get_store = functools.cache(lambda: artifact_store.ArtifactStore(*cache))

    async def fetch_adapter(adapter: llm_spec.Adapter) -> str:
        return await _adapter_path(get_store, adapter)

    weights = await _weights_path(get_store, spec.uri, spec.weights)
    order = llm_engine.EngineOrder(
        spec,
        weights,
        {adapter.name: await fetch_adapter(adapter) for adapter in spec.adapters},
        backend,
        address.run_dir,
        llm_weights.commit_of(spec.weights),
    )
    access = llm_server.WeightsAccess(_check_weights, fetch_adapter)
    return llm_server.LlmServer(address, order, make_engine, access)


async def _check_weights(spec: llm_spec.LlmSpec) -> None:
    await llm_weights.check(*spec.source, spec.weights)


async def _weights_path(
    get_store: Callable[[], artifact_store.ArtifactStore],
    uri: str,
    weights: llm_spec.Weights | None,
) -> str:
    """Return what an engine takes as a model: a local path or a repository of Hugging Face.

    Engines download from Hugging Face by themselves; all other remote weights come from the cache.
    Raises LoadFailed, Unloadable for other weights.
    """
    scheme, separator, name = uri.partition("://")
    if separator and scheme.lower() == hub.SCHEME:
        return name
    await llm_weights.check(uri, "", weights)
    return await _fetched(get_store(), uri) if separator else uri


async def _adapter_path(
    get_store: Callable[[], artifact_store.ArtifactStore], adapter: llm_spec.Adapter
) -> str:
    """Return a folder with the adapter's weights that does not change.

    Engines read adapters again whenever they have dropped them for others, so that even a local
    folder is copied into the cache. Raises LoadFailed, Unloadable for other weights.
    """
    scheme, separator, name = adapter.uri.partition("://")
    if separator and scheme.lower() == hub.SCHEME:
        commit = llm_weights.commit_of(adapter.weights)
        return await _adapter_at(name, commit) if commit else name
    path = await _fetched(get_store(), adapter.uri)
    # They may have been written while they were copied.
    await llm_weights.check(*adapter.source, adapter.weights)
    return path


async def _fetched(store: artifact_store.ArtifactStore, uri: str) -> str:
    artifact = await store.fetch(uri, "")
    store.hold(artifact)
    return str(artifact.path)


async def _adapter_at(repository: str, commit: str) -> str:
    try:
        return await asyncio.to_thread(hub.download, repository, commit)
    except (OSError, ValueError) as error:
        raise errors.LoadFailed(f"adapter {repository} can't be downloaded: {error}") from None
