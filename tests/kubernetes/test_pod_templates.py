from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import pod_paths, pod_templates
from tests.kubernetes import meshes

Json = dict[str, Any]


def pods(content: Json) -> list[Json]:
    settings = meshes.settings(content)
    workers = [pod_templates.worker(settings, group) for group in meshes.groups(content)]
    return [pod_templates.head(settings), *workers]


def containers(content: Json) -> list[Json]:
    return [pod["spec"]["containers"][0] for pod in pods(content)]


@pytest.mark.parametrize("content", [meshes.PLAIN, meshes.FULL])
def test_no_pod_has_rights_that_it_does_not_need(content: Json) -> None:
    for pod in pods(content):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        context = pod["spec"]["containers"][0]["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
    assert [pod["spec"]["automountServiceAccountToken"] for pod in pods(content)[1:]] == [
        False
    ] * len(meshes.groups(content))


def test_requests_are_limits_and_gpus_are_asked_for() -> None:
    results = [container["resources"] for container in containers(meshes.FULL)]
    assert all(item["requests"] == item["limits"] for item in results)
    gpus = [item["limits"].get("nvidia.com/gpu") for item in results]
    assert gpus == [None, None, "1", "2", None, "1"]
    assert results[1]["limits"] == {"cpu": "8", "memory": "8192Mi"}


def test_shared_memory_is_within_the_pods_memory() -> None:
    for pod, container in zip(pods(meshes.FULL), containers(meshes.FULL), strict=True):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        shared = volumes["shared-mem"]["emptyDir"]
        assert shared["medium"] == "Memory"
        memory = container["resources"]["limits"]["memory"]
        assert int(shared["sizeLimit"][:-2]) < int(memory[:-2])


def test_every_mount_has_its_volume_and_the_keys_are_references() -> None:
    for pod, container in zip(pods(meshes.FULL), containers(meshes.FULL), strict=True):
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert mounted == volumes.keys()
        keys = [item["key"] for item in volumes["keys"]["secret"]["items"]]
        is_head = container["name"] == "ray-head"
        own = ["MESHSERVE_CANARY_KEY", "OPS_KEY", "SHOP_KEY"]
        assert keys == (own if is_head else own[:1])
    assert "keys" not in {mount["name"] for mount in containers(meshes.PLAIN)[0]["volumeMounts"]}


def test_the_state_is_below_its_volumes_folder_which_is_roots() -> None:
    for container in containers(meshes.PLAIN):
        (volume,) = (item for item in container["volumeMounts"] if item["name"] == "state")
        assert pod_paths.STATE_DIR.startswith(f"{volume['mountPath']}/")


def test_only_the_head_gets_the_databases_password() -> None:
    names = [{entry["name"] for entry in item["env"]} for item in containers(meshes.FULL)]
    assert "PGPASSWORD" in names[0]
    assert not any("PGPASSWORD" in item for item in names[1:])


def test_a_pod_ends_after_its_drain() -> None:
    content = {**meshes.PLAIN, "kubernetes": {"drain_s": 300}}
    worker = pods(content)[1]
    assert worker["spec"]["terminationGracePeriodSeconds"] == 360
    command = worker["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == [
        *("sh", "-c"),
        "timeout 345 meshserve drain --self --timeout 300 || sleep 5",
    ]


def test_a_worker_is_ready_when_a_prediction_passes() -> None:
    probe = containers(meshes.PLAIN)[1]["readinessProbe"]
    module = "meshserve.kubernetes.canary_probe"
    assert probe["exec"]["command"] == ["python", "-I", "-m", module, "8080"]


def test_without_a_pool_that_always_has_a_worker_readiness_is_the_gateways() -> None:
    content = {
        "llms": [{"name": "a", "uri": "hf://a/b"}],
        "kubernetes": {"groups": {"pool-default": {"replicas": {"min": 0, "max": 1}}}},
    }
    assert containers(content)[1]["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_pods_go_where_the_group_says_and_spread() -> None:
    _, cpu, _, llm, *_ = pods(meshes.FULL)
    assert cpu["spec"]["nodeSelector"] == {"node.kubernetes.io/x": "cpu"}
    assert llm["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    for spread in cpu["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= cpu["metadata"]["labels"].items()


def test_images_are_of_the_kind_that_the_pod_needs() -> None:
    kinds = [container["image"].rpartition("-")[2] for container in containers(meshes.FULL)]
    assert kinds == ["cpu", "cpu", "cuda", "cuda", "cpu", "cuda"]
    own = {**meshes.PLAIN, "kubernetes": {"image": "registry/mesh:1"}}
    assert containers(own)[1]["image"] == "registry/mesh:1"
