"""The RayCluster, the RayService around it, and the volume of the mesh's state."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from meshserve import config
from meshserve.kubernetes import manifest_yaml, merge_patch, pod_groups, pod_paths, pod_templates

Manifest = dict[str, Any]
Groups = tuple[pod_groups.PodGroup, ...]

OBJECT_STORE_BYTES = 80 << 20
"""Ray's minimum: no request and no model passes through its object store."""

RAY_PARAMETERS = {
    "object-store-memory": str(OBJECT_STORE_BYTES),
    "node-manager-port": str(pod_paths.RAYLET_PORT),
    # KubeRay's own choice is 8080, where a gateway may listen.
    "metrics-export-port": str(pod_paths.METRICS_PORT),
    "disable-usage-stats": "true",
}
SERVE_TARGET = "meshserve.cluster.serve_app:app"
START_S = 1200
"""How long a new cluster of a RayService may take until its mesh is ready."""


def ray_cluster(settings: config.Config, groups: Groups) -> Manifest:
    """Return the RayCluster, with the user's patch."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": settings.kubernetes.name},
        "spec": spec(settings, groups, has_dashboard=False),
    }


def ray_service(settings: config.Config, groups: Groups) -> Manifest:
    """Return a RayService whose only app is healthy exactly when the mesh is.

    KubeRay then starts another cluster for a changed spec, and moves its own Service to it when the
    app there is healthy.
    """
    app = {"name": "mesh", "import_path": SERVE_TARGET, "route_prefix": "/mesh-health"}
    # Without proxies of Serve's: clients speak to the gateways.
    serve = {"proxy_location": "Disabled", "applications": [app]}
    service = {
        "serveConfigV2": manifest_yaml.dump(serve),
        "excludeHeadPodFromServeSvc": True,
        "upgradeStrategy": {"type": "NewCluster"},
        "rayClusterDeletionDelaySeconds": settings.kubernetes.drain_s,
        "rayClusterConfig": spec(settings, groups, has_dashboard=True),
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": settings.kubernetes.name,
            "annotations": {"ray.io/initializing-timeout": f"{START_S}s"},
        },
        "spec": merge_patch.merged(service, settings.kubernetes.service_patch),
    }


def spec(settings: config.Config, groups: Groups, *, has_dashboard: bool) -> Manifest:
    """Return the specification of the Ray cluster, with the user's patch.

    The dashboard, which has the job API, is only for KubeRay's calls of a RayService; both want
    Ray's token.
    """
    dashboard = {"include-dashboard": str(has_dashboard).lower()}
    if has_dashboard:
        dashboard["dashboard-host"] = "0.0.0.0"
    result: Manifest = {
        "rayVersion": importlib.metadata.version("ray"),
        "authOptions": _auth(settings),
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", **dashboard, **RAY_PARAMETERS},
            "template": _for_service(pod_templates.head(settings), has_dashboard),
        },
        "workerGroupSpecs": [
            _group(settings, group, groups, is_served=has_dashboard) for group in groups
        ],
    }
    if needs_autoscaler(groups):
        result |= _autoscaler()
    if settings.kubernetes.gcs.backend != "none":
        result["gcsFaultToleranceOptions"] = _fault_tolerance(settings)
    patched: Manifest = merge_patch.merged(result, settings.kubernetes.patch)
    return patched


def needs_autoscaler(groups: Groups) -> bool:
    """Return whether the number of any group's pods changes by itself."""
    return not all(group.is_fixed for group in groups)


def _auth(settings: config.Config) -> Manifest:
    secret = settings.kubernetes.token_secret
    return {"mode": "token"} | ({"secretName": secret} if secret else {})


def _group(
    settings: config.Config, group: pod_groups.PodGroup, groups: Groups, *, is_served: bool
) -> Manifest:
    result = {
        "groupName": group.name,
        "replicas": group.replicas_min,
        "minReplicas": group.replicas_min,
        "maxReplicas": group.replicas_max,
        "labels": {"meshserve/group": group.name},
        "rayStartParams": dict(RAY_PARAMETERS),
        "template": _for_service(pod_templates.worker(settings, group), is_served),
    }
    if needs_autoscaler(groups):
        result["idleTimeoutSeconds"] = group.section.idle_timeout_s
    return result


def _for_service(pod: Manifest, is_served: bool) -> Manifest:
    """Return a pod as it must be below a RayService, if it is."""
    if is_served:
        # KubeRay's Service of a RayService leads to the port of this name.
        container = pod["spec"]["containers"][0]
        container["ports"][0]["name"] = "serve"
        # During an upgrade the newer cluster writes the registry that both have.
        container["env"].append({"name": "MESHSERVE_TAKE_OVER", "value": "1"})
        # During an upgrade there are two heads, which can't share a volume.
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == "state" and volume.pop("persistentVolumeClaim", None):
                volume["emptyDir"] = {}
    return pod


def _autoscaler() -> Manifest:
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "securityContext": pod_templates.CONTAINER_SECURITY,
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - a pod's volume
        },
    }


def _fault_tolerance(settings: config.Config) -> Manifest:
    gcs = settings.kubernetes.gcs
    if gcs.backend == "rocksdb":
        # With the state's volume, the registry and Ray's tables live and end together.
        return {"backend": "rocksdb", "storage": {"size": "1Gi", "deletionPolicy": "Retain"}}
    options: Manifest = {"backend": "redis", "redisAddress": gcs.redis_address}
    if gcs.redis_secret:
        key = {"name": gcs.redis_secret, "key": "password"}
        options["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
    return options


def state_claim(settings: config.Config) -> Manifest:
    """Return the claim of the volume with the registry and the mesh's secret."""
    head = settings.kubernetes.head
    volume = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": f"{head.storage >> 20}Mi"}},
    }
    if head.storage_class is not None:
        volume["storageClassName"] = head.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": f"{settings.kubernetes.name}-state"},
        "spec": volume,
    }
