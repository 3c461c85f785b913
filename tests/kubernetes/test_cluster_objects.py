from __future__ import annotations

from typing import Any

import ray
import yaml

from meshserve.kubernetes import cluster_objects
from tests.kubernetes import meshes

Json = dict[str, Any]


def cluster(content: Json) -> Json:
    spec: Json = cluster_objects.ray_cluster(meshes.settings(content), meshes.groups(content))[
        "spec"
    ]
    return spec


def service(content: Json) -> Json:
    return cluster_objects.ray_service(meshes.settings(content), meshes.groups(content))


def test_the_head_does_no_work_and_has_no_dashboard() -> None:
    spec = cluster(meshes.PLAIN)
    parameters = spec["headGroupSpec"]["rayStartParams"]
    assert parameters["num-cpus"] == "0"
    assert parameters["include-dashboard"] == "false"
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["rayVersion"] == ray.__version__


def test_groups_that_never_change_need_no_autoscaler() -> None:
    spec = cluster(meshes.PLAIN)
    assert "enableInTreeAutoscaling" not in spec
    (group,) = spec["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (2, 2)
    assert "idleTimeoutSeconds" not in group


def test_a_group_that_changes_has_the_autoscaler_v2() -> None:
    spec = cluster(meshes.FULL)
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert groups["llm-qwen-qwen3"]["maxReplicas"] == 3
    assert groups["llm-qwen-qwen3"]["idleTimeoutSeconds"] == 300


def test_the_password_of_redis_is_a_reference() -> None:
    options = cluster(meshes.FULL)["gcsFaultToleranceOptions"]
    reference = {"secretKeyRef": {"name": "redis", "key": "password"}}
    assert options == {
        "backend": "redis",
        "redisAddress": "redis:6379",
        "redisPassword": {"valueFrom": reference},
    }
    assert "gcsFaultToleranceOptions" not in cluster(meshes.PLAIN)


def test_tables_on_a_volume_outlive_the_cluster() -> None:
    options = cluster({"kubernetes": {"gcs": {"backend": "rocksdb"}}})["gcsFaultToleranceOptions"]
    assert options["storage"]["deletionPolicy"] == "Retain"


def test_a_patch_reaches_one_group_and_leaves_the_others() -> None:
    patch = {"workerGroupSpecs": [{"groupName": "llm-small", "numOfHosts": 2}]}
    content = {**meshes.FULL, "kubernetes": {**meshes.FULL["kubernetes"], "patch": patch}}
    groups = {group["groupName"]: group for group in cluster(content)["workerGroupSpecs"]}
    assert groups["llm-small"]["numOfHosts"] == 2
    assert groups["llm-small"]["template"]
    assert "numOfHosts" not in groups["pool-default"]


def test_a_service_has_one_app_and_moves_clients_to_a_ready_cluster() -> None:
    spec = service(meshes.FULL)["spec"]
    serve = yaml.safe_load(spec["serveConfigV2"])
    assert serve["proxy_location"] == "Disabled"
    assert [app["import_path"] for app in serve["applications"]] == [cluster_objects.SERVE_TARGET]
    head = spec["rayClusterConfig"]["headGroupSpec"]
    assert head["rayStartParams"]["include-dashboard"] == "true"
    workers = spec["rayClusterConfig"]["workerGroupSpecs"]
    pods = [group["template"]["spec"] for group in (head, *workers)]
    # KubeRay's Service leads to the port of this name, which is the gateway's.
    assert {(pod["containers"][0]["ports"][0]["name"]) for pod in pods} == {"serve"}
    assert all(
        "persistentVolumeClaim" not in volume
        for pod in pods[:1]
        for volume in pod["volumes"]
        if volume["name"] == "state"
    )


def test_a_services_patch_changes_the_service() -> None:
    content = {"kubernetes": {"service_patch": {"rayClusterDeletionDelaySeconds": 5}}}
    assert service(content)["spec"]["rayClusterDeletionDelaySeconds"] == 5


def test_the_claim_has_the_size_and_class_that_were_asked_for() -> None:
    head = {"storage": "5GiB", "storage_class": "fast"}
    claim = cluster_objects.state_claim(meshes.settings({"kubernetes": {"head": head}}))
    assert claim["spec"]["resources"]["requests"]["storage"] == "5120Mi"
    assert claim["spec"]["storageClassName"] == "fast"


def test_only_the_newer_cluster_of_a_service_takes_the_registry() -> None:
    variable = {"name": "MESHSERVE_TAKE_OVER", "value": "1"}
    served = service(meshes.FULL)["spec"]["rayClusterConfig"]["headGroupSpec"]
    for head, is_taking_over in ((served, True), (cluster(meshes.FULL)["headGroupSpec"], False)):
        (container,) = head["template"]["spec"]["containers"]
        assert (variable in container["env"]) == is_taking_over
