"""Builds the real parts, each inside the process that holds it."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from meshserve import config, errors
from meshserve.cluster import controller_process, ray_cluster
from meshserve.control import control_plane
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import desired, llm_spec, model
from meshserve.gateway import gateway
from meshserve.gateway.envoy import gateway_paths
from meshserve.llm import engine_lookup, llm_server
from meshserve.logs import log_files
from meshserve.registry import sql_registry
from meshserve.storage import (
    artifact_store,
    hub,
    llm_weights,
    repository_watch,
    source_check,
    source_stamps,
)
from meshserve.worker import worker

LOG_NAME_MAX = 60

PRIVATE_UMASK = 0o077
"""The mask of permissions by which new files and folders belong to their user alone."""


class CacheLimits(NamedTuple):
    """The folder of fetched artifacts, its size limit, and the size limit of one artifact."""

    path: str
    size_bytes_max: int
    artifact_bytes_max: int


def _begin_process(
    plan: log_files.LogPlan, name: str, level: int = logging.WARNING, others: tuple[str, ...] = ()
) -> None:
    """Let only this user read what the process writes, its log first.

    `level` is that of libraries; `others` are logs of other programs that are to be kept short.
    """
    # On a Ray that we joined, the cluster's own mask holds, which may let everybody read.
    os.umask(PRIVATE_UMASK)
    handler = log_files.to_file(plan, name, *others)
    if plan.takes_output:
        log_files.take_output(handler, level)


def build_worker(
    logs: log_files.LogPlan, address: model.ServerAddress, settings: desired.WorkerSettings
) -> worker.PoolWorker:
    """Build a pool worker with its artifact cache."""
    # What a model logs as information is its owner's to see.
    _begin_process(logs, address.id, logging.INFO)
    cache = artifact_store.ArtifactStore(
        settings.cache_path, settings.cache_bytes_max, settings.artifact_bytes_max
    )
    return worker.PoolWorker(address, settings, cache)


def build_gateway(logs: log_files.LogPlan, secret: str, run_dir: str) -> gateway.NodeGateway:
    """Build the gateway of one node, which sends the mesh's secret to all servers of the mesh."""
    # Each node has a folder of its own on a cluster that has others, which may share their files.
    suffix = f"-{Path(run_dir).name}" if secret else ""
    is_json = logs.form == "json"
    envoys = gateway_paths.GatewayLogs(logs.folder, logs.access, is_json=is_json, suffix=suffix)
    _begin_process(logs, f"gateway{suffix}", others=envoys.files)
    # The raylet, which is the parent of all actors: Envoy serves on without the gateway's process,
    # but not without the node's.
    return gateway.NodeGateway(
        run_dir,
        guardian_pid=os.getppid(),
        secret=secret,
        logs=envoys,
        module_dir=str(Path(logs.folder).parent / "native"),
    )


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
    _begin_process(logs, address.id.replace("/", "-")[-LOG_NAME_MAX:])
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


def build_control_plane(
    plan: controller_process.ControllerPlan,
) -> controller_process.HostedControlPlane:
    """Build the control plane with its registry, its repository watch and its port to Ray."""
    _begin_process(plan.logs, "controller")
    settings = config.parse(json.loads(plan.document))
    cache = CacheLimits(
        str(settings.cache_path), settings.cache.size, settings.cache.artifact_bytes_max
    )
    makers = ray_cluster.Makers(
        worker=functools.partial(build_worker, plan.logs),
        gateway=functools.partial(build_gateway, plan.logs, plan.secret),
        replica=functools.partial(build_llm_server, plan.logs, cache),
        run_dir=plan.run_dir,
        secret=plan.secret,
    )
    database = sql_registry.SqlRegistry(plan.registry_url)
    parts = control_plane.ControlPlaneParts(
        ray_cluster.RayCluster(makers),
        database,
        repository_watch.FolderWatch(),
        plan.state_dir,
        check_uri=source_check.check_exists,
        identify_weights=llm_weights.identify,
        owner_key=plan.owner_key,
        stamp_sources=source_stamps.find_changed,
    )
    return controller_process.HostedControlPlane(plan, parts, database.close)
