"""KubeRay's rules for where Ray's head keeps its tables (validation.go of KubeRay 1.7.0)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshserve.kubernetes import rule_faults
from meshserve.kubernetes.rule_faults import RuleFault, entries, mapping

Faults = Iterator[RuleFault]

GATE = "GCSFaultToleranceEmbeddedStorage"
FT_ANNOTATION = "ray.io/ft-enabled"
NAMESPACE_ANNOTATION = "ray.io/external-storage-namespace"
STORAGE_VOLUME = "gcs-storage"
STORAGE_PATH = "/data/gcs"
STORAGE_VARIABLES = ("RAY_gcs_storage", "RAY_gcs_storage_path")
REDIS_KEYS = ("redisAddress", "redisUsername", "redisPassword", "externalStorageNamespace")
CLAIM_KEYS = ("size", "storageClassName", "accessModes")


def faults(
    spec: Mapping[str, Any], path: str, annotations: Mapping[str, Any], gates: frozenset[str]
) -> Faults:
    """Yield the faults of a cluster's fault tolerance."""
    head = mapping(spec.get("headGroupSpec"))
    parameters = mapping(head.get("rayStartParams"))
    environment = rule_faults.variables(rule_faults.ray_container(head))
    options = spec.get("gcsFaultToleranceOptions")
    field = f"{path}.gcsFaultToleranceOptions"
    place = f"{path}.headGroupSpec"
    if parameters.get("redis-username") or "REDIS_USERNAME" in environment:
        message = "the user of Redis is given in gcsFaultToleranceOptions.redisUsername alone"
        yield RuleFault("redis-username", f"{place}.rayStartParams.redis-username", message)
    if options is None:
        is_enabled = str(annotations.get(FT_ANNOTATION, "")).lower() == "true"
        if "RAY_REDIS_ADDRESS" in environment and not is_enabled:
            message = "RAY_REDIS_ADDRESS asks for fault tolerance without gcsFaultToleranceOptions"
            yield RuleFault("redis-without-options", field, message)
        return
    if annotations.get(FT_ANNOTATION):
        message = f"the annotation {FT_ANNOTATION} and gcsFaultToleranceOptions exclude each other"
        yield RuleFault("annotation-or-options", field, message)
    yield from _redis_elsewhere(place, parameters, environment, annotations)
    if mapping(options).get("backend") == "rocksdb":
        yield from _embedded(mapping(options), field, gates)
        yield from _reserved(head, place, environment)
    elif mapping(options).get("storage") is not None:
        message = "storage is only used with backend: rocksdb"
        yield RuleFault("storage-backend", f"{field}.storage", message)


def _redis_elsewhere(
    place: str,
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    annotations: Mapping[str, Any],
) -> Faults:
    if parameters.get("redis-password"):
        message = "with gcsFaultToleranceOptions the password belongs into its redisPassword"
        yield RuleFault("redis-password", f"{place}.rayStartParams.redis-password", message)
    for name in ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS"):
        if name in environment:
            message = f"{name} belongs into gcsFaultToleranceOptions"
            yield RuleFault("redis-variables", f"{place}.template.spec.containers[0].env", message)
    if annotations.get(NAMESPACE_ANNOTATION):
        message = "the namespace belongs into gcsFaultToleranceOptions.externalStorageNamespace"
        yield RuleFault("storage-annotation", "metadata.annotations", message)


def _embedded(options: Mapping[str, Any], field: str, gates: frozenset[str]) -> Faults:
    if GATE not in gates:
        message = (
            f"backend: rocksdb needs an operator that runs with --feature-gates={GATE}=true; "
            f"if it does, name it in kubernetes.feature_gates"
        )
        yield RuleFault("rocksdb-gate", f"{field}.backend", message)
    for key in REDIS_KEYS:
        if options.get(key):
            message = f"{key} is not used with backend: rocksdb"
            yield RuleFault("rocksdb-without-redis", f"{field}.{key}", message)
    storage = mapping(options.get("storage"))
    if storage.get("claimName") and any(storage.get(key) for key in CLAIM_KEYS):
        message = f"claimName excludes {', '.join(CLAIM_KEYS)}"
        yield RuleFault("claim-or-size", f"{field}.storage.claimName", message)


def _reserved(head: Mapping[str, Any], place: str, environment: Mapping[str, Any]) -> Faults:
    container = rule_faults.ray_container(head)
    field = f"{place}.template.spec"
    for name in STORAGE_VARIABLES:
        if name in environment:
            message = f"{name} is set by KubeRay"
            yield RuleFault("rocksdb-variables", f"{field}.containers[0].env", message)
    for mount in entries(container.get("volumeMounts")):
        if mount.get("mountPath") == STORAGE_PATH or mount.get("name") == STORAGE_VOLUME:
            message = f"{STORAGE_PATH} and the volume {STORAGE_VOLUME} are KubeRay's"
            yield RuleFault("rocksdb-mount", f"{field}.containers[0].volumeMounts", message)
    for volume in entries(rule_faults.pod_spec(head).get("volumes")):
        if volume.get("name") == STORAGE_VOLUME:
            message = f"the volume {STORAGE_VOLUME} is KubeRay's"
            yield RuleFault("rocksdb-volume", f"{field}.volumes", message)
