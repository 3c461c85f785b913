"""Manifests that KubeRay's operator takes, and changes of them that it refuses."""

from __future__ import annotations

import copy
from typing import Any

from meshserve.kubernetes import cluster_objects, merge_patch
from tests.kubernetes import meshes

Json = dict[str, Any]

ALL_GATES = frozenset(
    {"GCSFaultToleranceEmbeddedStorage", "RayClusterMTLS", "RayClusterNetworkPolicy"}
)


def cluster(patch: Json | None = None, **metadata: Any) -> Json:
    """A RayCluster with one group, changed by a patch of its spec."""
    manifest = copy.deepcopy(
        cluster_objects.ray_cluster(meshes.settings(meshes.PLAIN), meshes.groups(meshes.PLAIN))
    )
    manifest["metadata"] |= metadata
    manifest["spec"] = merge_patch.merged(manifest["spec"], patch or {})
    return manifest


def head(**parts: Any) -> Json:
    return {"headGroupSpec": parts}


def head_container(**parts: Any) -> Json:
    return head(template={"spec": {"containers": [{"name": "ray-head", **parts}]}})


def head_env(*names: str, value: str = "x") -> Json:
    return head_container(env=[{"name": name, "value": value} for name in names])


def group(**parts: Any) -> Json:
    return {"workerGroupSpecs": [{"groupName": "pool-default", **parts}]}


def scaling(**options: Any) -> Json:
    return {
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {"version": "v2", **options},
    }


def embedded(**options: Any) -> Json:
    return {"gcsFaultToleranceOptions": {"backend": "rocksdb", **options}}


REDIS = {"gcsFaultToleranceOptions": {"redisAddress": "redis:6379"}}
FT = "ray.io/ft-enabled"
STORAGE = "ray.io/external-storage-namespace"
V2 = "RAY_enable_autoscaler_v2"
TLS = {"tlsOptions": {"enabled": True}}
POLICY = {"networkPolicy": {"mode": "DenyAllEgress", "head": {"egressRules": [{}]}}}
# By rule: a manifest that it takes, and one that it refuses.
CLUSTER_RULES: dict[str, list[tuple[Json, Json]]] = {
    "name-length": [(cluster(name="a" * 53), cluster(name="a" * 54))],
    "name-dns-1035": [
        (cluster(name="mesh-1"), cluster(name="1-mesh")),
        (cluster(name="mesh"), cluster(name="Mesh")),
        (cluster(name="a"), cluster(name="a-")),
    ],
    "upgrade-type": [
        (
            cluster({"upgradeStrategy": {"type": "Recreate"}}),
            cluster({"upgradeStrategy": {"type": "NewCluster"}}),
        )
    ],
    "group-container": [
        (cluster(), cluster(group(template={"spec": {"containers": []}}))),
        (cluster(), cluster(head(template={"spec": {"containers": []}}))),
    ],
    "replicas-given": [
        (cluster(group(minReplicas=0)), cluster(group(minReplicas=None))),
        (cluster(scaling() | group(maxReplicas=None)), cluster(group(maxReplicas=None))),
    ],
    "replicas-natural": [(cluster(group(minReplicas=0)), cluster(group(minReplicas=-1)))],
    "replicas-order": [
        (cluster(group(minReplicas=2, maxReplicas=2)), cluster(group(minReplicas=3)))
    ],
    "resources-once": [
        (
            cluster(group(resources={"CPU": "4"})),
            cluster(group(resources={"CPU": "4"}, rayStartParams={"num-cpus": "4"})),
        ),
        (cluster(), cluster(head(resources={"CPU": "0"}))),
    ],
    "labels-parameter": [
        (cluster(group(labels={"a": "b"})), cluster(group(rayStartParams={"labels": "a=b"})))
    ],
    "label-syntax": [
        (cluster(group(labels={"a.b/c": "d"})), cluster(group(labels={"a/b/c": "d"}))),
        (cluster(group(labels={"a": ""})), cluster(group(labels={"a": "b c"}))),
        (cluster(group(labels={"a": "b" * 63})), cluster(group(labels={"a": "b" * 64}))),
    ],
    "annotation-or-options": [
        (
            cluster(annotations={FT: "true"}),
            cluster(REDIS, annotations={FT: "true"}),
        )
    ],
    "redis-without-options": [
        (
            cluster(head_env("RAY_REDIS_ADDRESS"), annotations={FT: "true"}),
            cluster(head_env("RAY_REDIS_ADDRESS")),
        )
    ],
    "redis-password": [
        (
            cluster(head(rayStartParams={"redis-password": "x"})),
            cluster(REDIS | head(rayStartParams={"redis-password": "x"})),
        )
    ],
    "redis-variables": [
        (cluster(REDIS), cluster(REDIS | head_env("REDIS_PASSWORD"))),
        (cluster(REDIS), cluster(REDIS | head_env("RAY_REDIS_ADDRESS"))),
    ],
    "storage-annotation": [
        (cluster(annotations={STORAGE: "a"}), cluster(REDIS, annotations={STORAGE: "a"}))
    ],
    "redis-username": [
        (cluster(REDIS), cluster(REDIS | head(rayStartParams={"redis-username": "x"}))),
        (cluster(), cluster(head_env("REDIS_USERNAME"))),
    ],
    "rocksdb-without-redis": [
        (cluster(embedded()), cluster(embedded(redisAddress="a:1"))),
        (cluster(embedded()), cluster(embedded(redisUsername={"value": "a"}))),
        (cluster(embedded()), cluster(embedded(redisPassword={"value": "a"}))),
        (cluster(embedded()), cluster(embedded(externalStorageNamespace="a"))),
    ],
    "claim-or-size": [
        (
            cluster(embedded(storage={"claimName": "a"})),
            cluster(embedded(storage={"claimName": "a", "size": "1Gi"})),
        )
    ],
    "rocksdb-variables": [
        (cluster(embedded()), cluster(embedded() | head_env("RAY_gcs_storage_path")))
    ],
    "rocksdb-mount": [
        (
            cluster(embedded()),
            cluster(
                embedded() | head_container(volumeMounts=[{"name": "a", "mountPath": "/data/gcs"}])
            ),
        )
    ],
    "rocksdb-volume": [
        (
            cluster(embedded()),
            cluster(
                embedded()
                | head(template={"spec": {"volumes": [{"name": "gcs-storage", "emptyDir": {}}]}})
            ),
        )
    ],
    "storage-backend": [
        (
            cluster(embedded(storage={"size": "1Gi"})),
            cluster({"gcsFaultToleranceOptions": {"redisAddress": "a", "storage": {"size": "1"}}}),
        )
    ],
    "autoscaler-off": [
        (
            cluster({"enableInTreeAutoscaling": True} | head_env(V2, value="1")),
            cluster(head_env(V2, value="1")),
        )
    ],
    "autoscaler-version-once": [
        (cluster(scaling()), cluster(scaling() | head_env(V2, value="true")))
    ],
    "restart-policy": [
        (
            cluster(scaling() | group(template={"spec": {"restartPolicy": "Never"}})),
            cluster(scaling() | group(template={"spec": {"restartPolicy": "Always"}})),
        ),
        (
            cluster(head(template={"spec": {"restartPolicy": "Always"}})),
            cluster(scaling() | head(template={"spec": {"restartPolicy": "OnFailure"}})),
        ),
    ],
    "suspend": [(cluster(group(suspend=True)), cluster(scaling() | group(suspend=True)))],
    "idle-natural": [
        (cluster(scaling(idleTimeoutSeconds=0)), cluster(scaling(idleTimeoutSeconds=-1))),
        (
            cluster(scaling() | group(idleTimeoutSeconds=0)),
            cluster(scaling() | group(idleTimeoutSeconds=-1)),
        ),
    ],
    "idle-version": [
        (
            cluster(scaling() | group(idleTimeoutSeconds=60)),
            cluster(scaling(version="v1") | group(idleTimeoutSeconds=60)),
        )
    ],
    "priority-version": [
        (
            cluster(scaling() | group(priority=1)),
            cluster(scaling() | group(priority=1) | {"rayVersion": "2.55.0"}),
        )
    ],
    "priority-autoscaler": [(cluster(scaling() | group(priority=1)), cluster(group(priority=1)))],
    "autoscaler-command": [
        (
            cluster(scaling(env=[{"name": "A", "value": "1"}])),
            cluster(scaling(env=[{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "1"}])),
        )
    ],
    "token-version": [
        (cluster({"rayVersion": "2.52.0"}), cluster({"rayVersion": "2.51.9"})),
        (cluster(), cluster({"rayVersion": "nightly"})),
        (cluster(), cluster({"rayVersion": None})),
    ],
    "account-token-mode": [
        (
            cluster({"authOptions": {"enableK8sTokenAuth": True}}),
            cluster({"authOptions": {"enableK8sTokenAuth": True, "mode": "disabled"}}),
        )
    ],
    "account-token-version": [
        (
            cluster({"authOptions": {"enableK8sTokenAuth": True}, "rayVersion": "2.55.0"}),
            cluster({"authOptions": {"enableK8sTokenAuth": True}, "rayVersion": "2.54.0"}),
        )
    ],
    "account-token-secret": [
        (
            cluster({"authOptions": {"secretName": "a"}}),
            cluster({"authOptions": {"secretName": "a", "enableK8sTokenAuth": True}}),
        )
    ],
    "policy-direction": [
        (
            cluster(POLICY),
            cluster({"networkPolicy": {"mode": "DenyAllEgress", "head": {"ingressRules": [{}]}}}),
        ),
        (
            cluster(POLICY),
            cluster({"networkPolicy": {"mode": "DenyAllIngress", "worker": {"egressRules": [{}]}}}),
        ),
    ],
    "policy-group-name": [
        (
            cluster(POLICY),
            cluster(
                POLICY
                | {
                    "workerGroupSpecs": [
                        {**cluster()["spec"]["workerGroupSpecs"][0], "groupName": "Pool"}
                    ]
                }
            ),
        )
    ],
    "policy-group": [
        (
            cluster({"networkPolicy": {"workerGroups": [{"groupName": "pool-default"}]}}),
            cluster({"networkPolicy": {"workerGroups": [{"groupName": "other"}]}}),
        )
    ],
    "tls-variables": [
        (cluster(TLS), cluster(TLS | head_env("RAY_TLS_CA_CERT"))),
        (
            cluster(TLS | scaling()),
            cluster(TLS | scaling(env=[{"name": "RAY_USE_TLS", "value": "1"}])),
        ),
    ],
    "tls-mount": [
        (
            cluster(TLS),
            cluster(
                TLS | head_container(volumeMounts=[{"name": "a", "mountPath": "/etc/ray/tls"}])
            ),
        )
    ],
}

GATED: list[Json] = [cluster(POLICY), cluster(TLS)]

MODULES: dict[str, tuple[str, ...]] = {
    "AUTOSCALER": (
        "autoscaler-off",
        "autoscaler-version-once",
        "restart-policy",
        "suspend",
        "idle-natural",
        "idle-version",
        "priority-version",
        "priority-autoscaler",
        "autoscaler-command",
    ),
    "GCS": (
        "annotation-or-options",
        "redis-without-options",
        "redis-password",
        "redis-variables",
        "storage-annotation",
        "redis-username",
        "rocksdb-without-redis",
        "claim-or-size",
        "rocksdb-variables",
        "rocksdb-mount",
        "rocksdb-volume",
        "storage-backend",
    ),
    "GATED": (
        "token-version",
        "account-token-mode",
        "account-token-version",
        "account-token-secret",
        "policy-direction",
        "policy-group-name",
        "policy-group",
        "tls-variables",
        "tls-mount",
    ),
}


def cases(module: str = "") -> list[tuple[str, Json, Json]]:
    """The rules of a module, those of `kuberay_rules` itself by default: rule, taken, refused."""
    elsewhere = {rule for rules in MODULES.values() for rule in rules}
    rules = MODULES[module] if module else CLUSTER_RULES.keys() - elsewhere
    return [
        (rule, taken, refused) for rule in sorted(rules) for taken, refused in CLUSTER_RULES[rule]
    ]
