"""RayServices that KubeRay's operator takes, and changes of them that it refuses."""

from __future__ import annotations

import copy
from typing import Any

from meshserve.kubernetes import cluster_objects, merge_patch
from tests.kubernetes import meshes, rule_cases

Json = dict[str, Any]


def service(patch: Json | None = None, **metadata: Any) -> Json:
    """A RayService with the same cluster, changed by a patch of its spec."""
    content = meshes.FULL
    manifest = copy.deepcopy(
        cluster_objects.ray_service(meshes.settings(content), meshes.groups(content))
    )
    manifest["metadata"] |= metadata
    manifest["spec"] = merge_patch.merged(manifest["spec"], patch or {})
    return manifest


PERCENTS = {
    "maxSurgePercent": 50,
    "stepSizePercent": 10,
    "intervalSeconds": 5,
    "gatewayClassName": "istio",
}


def incremental(**options: Any) -> Json:
    kind = {"type": "NewClusterWithIncrementalUpgrade"}
    return {"upgradeStrategy": {**kind, "clusterUpgradeOptions": {**PERCENTS, **options}}}


# By rule: a manifest that it takes, and one that it refuses.
SERVICE_RULES: dict[str, list[tuple[Json, Json]]] = {
    "name-length": [(service(name="a" * 47), service(name="a" * 48))],
    "initializing-timeout": [
        (
            service(annotations={"ray.io/initializing-timeout": text}),
            service(annotations={"ray.io/initializing-timeout": wrong}),
        )
        for text, wrong in [("5m", "-5m"), ("1h30m", "soon"), ("600", "0"), ("1.5h", "5 m")]
    ],
    "account-token-service": [
        (
            service(),
            service({"rayClusterConfig": {"authOptions": {"enableK8sTokenAuth": True}}}),
        )
    ],
    "head-service-name": [
        (
            service(
                {
                    "rayClusterConfig": rule_cases.head(
                        headService={"metadata": {"labels": {"a": "b"}}}
                    )
                }
            ),
            service({"rayClusterConfig": rule_cases.head(headService={"metadata": {"name": "a"}})}),
        )
    ],
    "upgrade-owner": [
        (service(), service({"rayClusterConfig": {"upgradeStrategy": {"type": "Recreate"}}}))
    ],
    "upgrade-type": [
        (
            service({"upgradeStrategy": {"type": "None"}}),
            service({"upgradeStrategy": {"type": "Recreate"}}),
        )
    ],
    "deletion-delay": [
        (
            service({"rayClusterDeletionDelaySeconds": 0}),
            service({"rayClusterDeletionDelaySeconds": -1}),
        )
    ],
    "incremental-autoscaler": [
        (
            service(incremental()),
            service(incremental() | {"rayClusterConfig": {"enableInTreeAutoscaling": None}}),
        )
    ],
    "incremental-options": [
        (
            service(incremental()),
            service({"upgradeStrategy": {"type": "NewClusterWithIncrementalUpgrade"}}),
        )
    ],
    "incremental-surge": [
        (service(incremental(maxSurgePercent=100)), service(incremental(maxSurgePercent=101)))
    ],
    "incremental-step": [
        (service(incremental(stepSizePercent=0)), service(incremental(stepSizePercent=-1))),
        (service(incremental()), service(incremental(stepSizePercent=None))),
    ],
    "incremental-order": [
        (service(incremental(stepSizePercent=50)), service(incremental(stepSizePercent=51)))
    ],
    "incremental-interval": [
        (service(incremental(intervalSeconds=1)), service(incremental(intervalSeconds=0)))
    ],
    "incremental-gateway": [(service(incremental()), service(incremental(gatewayClassName="")))],
}
