"""Configurations of the tests, and their manifests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from meshserve import config
from meshserve.config import diagnostics
from meshserve.kubernetes import manifests, pod_groups

Json = dict[str, Any]

PLAIN: Json = {"pools": {"default": {"workers": 2}}, "models": []}
FULL: Json = {
    "gateway": {
        "keys": [
            {"client": "shop", "key_env": "SHOP_KEY"},
            {"client": "ops", "key_env": "OPS_KEY", "admin": True},
        ]
    },
    "registry": {"url": "postgresql://mesh@db.example/mesh"},
    "pools": {
        "default": {"workers": 4, "memory": "6GiB"},
        "Vision_GPU": {"workers": 2, "device": "cuda", "gpu_memory": "20GiB"},
    },
    "models": [
        {"name": "iris", "uri": "s3://bucket/iris.onnx"},
        {"name": "local", "uri": "/models/local.onnx", "pool": "Vision_GPU"},
    ],
    "llms": [
        {
            "name": "Qwen/Qwen3",
            "uri": "hf://Qwen/Qwen3-0.6B",
            "tensor_parallel_size": 2,
            "replicas": {"min": 0, "max": 3},
        },
        {"name": "small", "uri": "hf://a/b", "device": "cpu"},
        {"name": "one", "uri": "hf://a/one", "share": "night"},
        {"name": "two", "uri": "hf://a/two", "share": "night"},
    ],
    "kubernetes": {
        "name": "shop",
        "namespace": "models",
        "registry_secret": "database",
        "volumes": {"models": {"claim": "models", "path": "/models"}},
        "clients": {"kubernetes.io/metadata.name": "shop"},
        "gcs": {"backend": "redis", "redis_address": "redis:6379", "redis_secret": "redis"},
        "groups": {
            "pool-default": {"cpus": 8, "node_selector": {"node.kubernetes.io/x": "cpu"}},
            "llm-qwen-qwen3": {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
        },
    },
}


def settings(content: Json) -> config.Config:
    """The configuration that a file with this content has, without the checks for Kubernetes."""
    with tempfile.TemporaryDirectory() as folder:
        return config.load_elsewhere(write(content, Path(folder)))[0]


def groups(content: Json) -> tuple[pod_groups.PodGroup, ...]:
    return pod_groups.plan(settings(content))


def build(content: Json, *, is_served: bool = False, has_pool: bool = False) -> list[Json]:
    options = manifests.ManifestOptions(is_served, has_pool)
    built = settings(content)
    assert [fault.message for fault in manifests.faults(built, options)] == []
    return list(manifests.build(built, content, options))


def of_kind(objects: list[Json], kind: str) -> list[Json]:
    return [manifest for manifest in objects if manifest["kind"] == kind]


def one(objects: list[Json], kind: str) -> Json:
    (results,) = of_kind(objects, kind)
    return results


def faults(content: Json, *, is_served: bool = False) -> list[str]:
    """Each fault as `field: message`."""
    results = manifests.faults(settings(content), manifests.ManifestOptions(is_served))
    return [f"{diagnostics.field(fault.path)}: {fault.message}" for fault in results]


def write(content: Json, folder: Path) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path
