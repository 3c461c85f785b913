"""The configuration as the pods get it, and the files beside it."""

from __future__ import annotations

import base64
import importlib.resources
from collections.abc import Mapping
from typing import Any

from meshserve import config
from meshserve.config import schema, workers_schema
from meshserve.kubernetes import manifest_yaml, pod_groups, pod_paths

Document = dict[str, Any]


def gateway_port(settings: config.Config) -> int:
    """Return the port on which every gateway listens."""
    return int(settings.gateway.listen.rpartition(":")[2])


def key_variables(settings: config.Config) -> tuple[str, ...]:
    """Return the variables that the Secret must have: those of the file's keys, and the canary's.

    A mesh without keys needs none.
    """
    keys = settings.gateway.keys
    named = {name for key in keys if (name := config.variable_of(key.key)) is not None}
    return tuple(sorted(named | {pod_paths.CANARY_VARIABLE})) if keys else ()


def canary_pool(settings: config.Config, groups: tuple[pod_groups.PodGroup, ...]) -> str:
    """Return the first pool that always has a worker, or an empty text."""
    return next(
        (
            str(group.origin[1])
            for group in groups
            if group.origin[0] == "pools"
            and group.replicas_min
            and settings.pools[str(group.origin[1])].device == "cpu"
        ),
        "",
    )


def document(
    settings: config.Config, content: Mapping[str, Any], groups: tuple[pod_groups.PodGroup, ...]
) -> Document:
    """Return what config.yaml of the pods says; `content` is what the user's file says."""
    result = {key: value for key, value in content.items() if key != "kubernetes"}
    result["state_dir"] = pod_paths.STATE_DIR
    result["gateway"] = _gateway(settings, content.get("gateway") or {})
    result["pools"] = _pools(settings, content.get("pools") or {}, groups)
    if settings.llms:
        result["llms"] = [
            {**entry, "device": "cuda" if pod_groups.is_on_gpus(settings, llm) else "cpu"}
            for entry, llm in zip(content["llms"], settings.llms, strict=True)
        ]
    pool = canary_pool(settings, groups)
    if pool:
        result["models"] = [*(content.get("models") or ()), _canary(pool)]
    return result


def _gateway(settings: config.Config, section: Mapping[str, Any]) -> Document:
    result = {**section, "listen": f"0.0.0.0:{gateway_port(settings)}"}
    if settings.gateway.keys:
        canary = {"client": pod_paths.CANARY_CLIENT, "key_env": pod_paths.CANARY_VARIABLE}
        result["keys"] = [*section["keys"], canary]
    return result


def _pools(
    settings: config.Config, section: Mapping[str, Any], groups: tuple[pod_groups.PodGroup, ...]
) -> Document:
    # `auto` would count the cores of all machines, the head's among them.
    return {
        str(group.origin[1]): {
            **(section.get(str(group.origin[1])) or {}),
            "workers": _workers(settings.pools[str(group.origin[1])], group),
        }
        for group in groups
        if group.origin[0] == "pools"
    }


def _workers(pool: schema.PoolSection, group: pod_groups.PodGroup) -> int | Document:
    least, most = pod_groups.worker_bounds(pool, group)
    if not isinstance(pool.workers, workers_schema.WorkersSection):
        return most
    return {**pool.workers.model_dump(exclude_defaults=True), "min": least, "max": most}


def _canary(pool: str) -> Document:
    return {
        "name": pod_paths.CANARY_MODEL,
        "uri": f"{pod_paths.CONFIG_DIR}/{pod_paths.CANARY_FILE}",
        "runtime": "onnx",
        "pool": pool,
        # Its answer tells whether requests pass, and not how full the memory is.
        "pinned": True,
    }


def config_map(
    settings: config.Config, content: Mapping[str, Any], groups: tuple[pod_groups.PodGroup, ...]
) -> Document:
    """Return the ConfigMap with config.yaml, the head's script and the canary model."""
    text = manifest_yaml.dump(document(settings, content, groups))
    files = importlib.resources.files(__package__)
    canary = files.joinpath(pod_paths.CANARY_FILE).read_bytes()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{settings.kubernetes.name}-config"},
        "data": {
            pod_paths.CONFIG_FILE: text,
            pod_paths.KEEPER_FILE: files.joinpath(pod_paths.KEEPER_FILE).read_text(),
        },
        "binaryData": {pod_paths.CANARY_FILE: base64.b64encode(canary).decode()},
    }
