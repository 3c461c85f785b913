"""The pods of Ray's head and of each group, as KubeRay takes them."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from meshserve import config
from meshserve.core.values import nodes
from meshserve.kubernetes import kube_names, pod_config, pod_groups, pod_paths

Manifest = dict[str, Any]

GRACE_MARGIN_S = 15
"""Added to the time of the drain: the rest of a pod's grace, in which its processes end."""

UNKNOWN_S = 5
"""How long a pod waits that could not be drained: endpoints of Services change in seconds."""

START_TRIES = 120
PROBE_S = 5
LOGS_BYTES = 4 << 30
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": pod_paths.USER_ID,
    "runAsGroup": pod_paths.USER_ID,
    "fsGroup": pod_paths.USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# As for a cluster of our own (docs/operations.md): Ray's defaults would give Envoy and the workers
# the CPU after all other programs, and kill them when another program takes the memory.
RAY_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
LOST_HEAD_S = 600
"""How long workers wait for another head, where its tables outlive it. Ray's default is 60 s."""


def head(settings: config.Config) -> Manifest:
    """Return the pod of Ray's head. Beside Ray it runs the script that starts the mesh."""
    section = settings.kubernetes.head
    container = _container(settings, "ray-head", gpus=0)
    container["resources"] = _resources(section.cpus, section.memory, {})
    # KubeRay puts its `ray start --block` behind these words, with `&&`.
    script = f"{pod_paths.CONFIG_DIR}/{pod_paths.KEEPER_FILE}"
    container["args"] = [f"bash {script} & true"]
    container["ports"].append({"name": "gcs", "containerPort": pod_paths.GCS_PORT})
    # Ray's own health is all that readiness asks of the head: workers find it by a Service, and the
    # mesh needs the workers.
    alive = {"grpc": {"port": pod_paths.GCS_PORT}, "periodSeconds": PROBE_S, "timeoutSeconds": 3}
    container |= {
        "startupProbe": {**alive, "failureThreshold": START_TRIES},
        "livenessProbe": {**alive, "failureThreshold": 6},
        "readinessProbe": {**alive, "failureThreshold": 3},
    }
    claim = {"claimName": f"{settings.kubernetes.name}-state"}
    volumes = _volumes(settings, pod_groups.POOL_SHARED_BYTES, pod_config.key_variables(settings))
    volumes.append({"name": "state", "persistentVolumeClaim": claim})
    return _pod(settings, container, volumes, {"meshserve/role": "head"})


def worker(settings: config.Config, group: pod_groups.PodGroup) -> Manifest:
    """Return the pod of a group. It is ready when a prediction passes through its gateway."""
    container = _container(settings, "ray-worker", gpus=group.gpus)
    extra = {group.section.gpu_resource: str(group.gpus)} if group.gpus else {}
    container["resources"] = _resources(group.cpus, group.memory_bytes, extra)
    alive = {"tcpSocket": {"port": pod_paths.RAYLET_PORT}, "periodSeconds": PROBE_S}
    container |= {
        "startupProbe": {**alive, "failureThreshold": START_TRIES},
        "livenessProbe": {**alive, "timeoutSeconds": 3, "failureThreshold": 6},
        "readinessProbe": _readiness(settings),
        "lifecycle": {"preStop": {"exec": {"command": drain_command(settings)}}},
    }
    keys = pod_config.key_variables(settings)
    canary = tuple(name for name in keys if name == pod_paths.CANARY_VARIABLE)
    volumes = _volumes(settings, group.shared_bytes, canary)
    limit = kube_names.quantity(settings.cache.size + LOGS_BYTES)
    volumes.append({"name": "state", "emptyDir": {"sizeLimit": limit}})
    labels = {"meshserve/role": "worker", "meshserve/group": group.name}
    pod = _pod(settings, container, volumes, labels)
    spec = pod["spec"]
    leave_s = round(nodes.LEAVE_S) + GRACE_MARGIN_S
    spec["terminationGracePeriodSeconds"] = settings.kubernetes.drain_s + leave_s
    spec["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            # A pod in a second place of the same node serves; one that is not placed does not.
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"meshserve/group": group.name}},
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]
    spec |= _placement(group)
    return pod


def drain_command(settings: config.Config) -> list[str]:
    """Return what a pod runs before it ends: its models move, and its requests end.

    Kubernetes takes it out of Services at the same time. Where no mesh answers, a pause lets new
    connections go elsewhere.
    """
    move_s = settings.kubernetes.drain_s
    limit_s = move_s + round(nodes.LEAVE_S)
    drain = f"timeout {limit_s} meshserve drain --self --timeout {move_s}"
    return ["sh", "-c", f"{drain} || sleep {UNKNOWN_S}"]


def _readiness(settings: config.Config) -> Manifest:
    port = pod_config.gateway_port(settings)
    if not pod_config.canary_pool(settings, pod_groups.plan(settings)):
        # No pool always has a worker, and a canary would keep one awake for ever.
        return {"httpGet": {"path": "/readyz", "port": port}, "periodSeconds": PROBE_S}
    command = ["python", "-I", "-m", "meshserve.kubernetes.canary_probe", str(port)]
    return {
        "exec": {"command": command},
        "periodSeconds": PROBE_S,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }


def _container(settings: config.Config, name: str, *, gpus: int) -> Manifest:
    port = {"name": pod_paths.GATEWAY, "containerPort": pod_config.gateway_port(settings)}
    environment = {
        **RAY_ENVIRONMENT,
        "HOME": pod_paths.VOLUME_DIR,
        "MESHSERVE_HOME": pod_paths.STATE_DIR,
        "MESHSERVE_ENDPOINT": f"http://127.0.0.1:{port['containerPort']}",
    }
    if settings.kubernetes.gcs.backend != "none":
        environment["RAY_gcs_rpc_server_reconnect_timeout_s"] = str(LOST_HEAD_S)
    return {
        "name": name,
        "image": image(settings, gpus=gpus),
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": key, "value": value} for key, value in environment.items()]
        + _registry_password(settings, name),
        "ports": [port, {"name": "metrics", "containerPort": pod_paths.METRICS_PORT}],
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": _mounts(settings),
    }


def _registry_password(settings: config.Config, container: str) -> list[Manifest]:
    # libpq reads it; only the controller, on the head, speaks to the database.
    secret = settings.kubernetes.registry_secret
    if not secret or container != "ray-head":
        return []
    source = {"secretKeyRef": {"name": secret, "key": "password"}}
    return [{"name": "PGPASSWORD", "valueFrom": source}]


def image(settings: config.Config, *, gpus: int) -> str:
    """Return the image of a pod."""
    kind, named = (
        ("cuda", settings.kubernetes.gpu_image) if gpus else ("cpu", settings.kubernetes.image)
    )
    return named or f"meshserve:{importlib.metadata.version('meshserve')}-{kind}"


def _resources(cpus: int, memory_bytes: int, extra: Mapping[str, str]) -> Manifest:
    # Requests equal limits: pods of class Guaranteed are ended last when a node's memory is short.
    amounts = {"cpu": str(cpus), "memory": kube_names.quantity(memory_bytes), **extra}
    return {"requests": amounts, "limits": dict(amounts)}


def _mounts(settings: config.Config) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": pod_paths.CONFIG_DIR, "readOnly": True},
        {"name": "state", "mountPath": pod_paths.VOLUME_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod
        {"name": "shared-mem", "mountPath": "/dev/shm"},  # noqa: S108 - a volume of the pod
    ]
    if settings.gateway.keys:
        mounts.append({"name": "keys", "mountPath": pod_paths.KEYS_DIR, "readOnly": True})
    mounts += [
        {"name": name, "mountPath": str(volume.path), "readOnly": True}
        for name, volume in settings.kubernetes.volumes.items()
    ]
    return mounts


def _volumes(
    settings: config.Config, shared_bytes: int, variables: tuple[str, ...]
) -> list[Manifest]:
    section = settings.kubernetes
    shared = {"medium": "Memory", "sizeLimit": kube_names.quantity(shared_bytes)}
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": f"{section.name}-config"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-mem", "emptyDir": shared},
    ]
    if variables:
        items = [{"key": name, "path": name} for name in variables]
        secret = {"secretName": secret_name(settings), "items": items, "defaultMode": 0o440}
        volumes.append({"name": "keys", "secret": secret})
    volumes += [
        {"name": name, "persistentVolumeClaim": {"claimName": volume.claim, "readOnly": True}}
        for name, volume in section.volumes.items()
    ]
    return volumes


def secret_name(settings: config.Config) -> str:
    """Return the name of the Secret with the clients' keys."""
    return settings.kubernetes.secret or f"{settings.kubernetes.name}-keys"


def _pod(
    settings: config.Config, container: Manifest, volumes: list[Manifest], labels: dict[str, str]
) -> Manifest:
    return {
        "metadata": {"labels": {"meshserve/mesh": settings.kubernetes.name, **labels}},
        "spec": {
            # Only the head's autoscaler asks Kubernetes, and KubeRay gives it an account.
            "automountServiceAccountToken": labels["meshserve/role"] == "head",
            "securityContext": POD_SECURITY,
            "containers": [container],
            "volumes": volumes,
        },
    }


def _placement(group: pod_groups.PodGroup) -> Manifest:
    placement: Manifest = {}
    if group.section.node_selector:
        placement["nodeSelector"] = dict(group.section.node_selector)
    if group.section.tolerations:
        placement["tolerations"] = [dict(entry) for entry in group.section.tolerations]
    return placement
