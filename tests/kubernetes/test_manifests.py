from __future__ import annotations

from typing import Any

import pytest

from meshserve import errors
from meshserve.kubernetes import manifests
from tests.kubernetes import meshes, schemas

Json = dict[str, Any]
WAYS = [
    (content, is_served)
    for content in (meshes.PLAIN, meshes.FULL)
    for is_served in (False, True)
    # A RayService has two clusters for a while, which can't share a SQLite file.
    if not (is_served and content is meshes.PLAIN)
]


@pytest.mark.parametrize(("content", "is_served"), WAYS)
def test_every_object_is_what_kubernetes_and_kuberay_take(content: Json, is_served: bool) -> None:
    for manifest in meshes.build(content, is_served=is_served):
        if manifest["kind"] != "PodMonitor":  # another operator's
            assert schemas.faults(manifest) == [], manifest["kind"]


def test_the_schemas_see_a_misspelt_field_and_a_broken_rule() -> None:
    objects = meshes.build(meshes.PLAIN)
    cluster = meshes.one(objects, "RayCluster")
    cluster["spec"]["headGroupSpec"]["rayStartParms"] = {}
    cluster["spec"]["managedBy"] = "somebody"
    assert len(schemas.faults(cluster)) == 2
    budget = meshes.of_kind(objects, "PodDisruptionBudget")[0]
    budget["spec"]["maxUnavailible"] = 1
    assert schemas.faults(budget)


def test_all_objects_are_in_one_namespace_and_have_names_of_their_own() -> None:
    objects = meshes.build(meshes.FULL)
    assert {manifest["metadata"]["namespace"] for manifest in objects} == {"models"}
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in objects]
    assert len(set(names)) == len(names)


def test_a_service_has_two_clusters_at_times_and_no_claim() -> None:
    kinds = {manifest["kind"] for manifest in meshes.build(meshes.FULL, is_served=True)}
    assert "RayService" in kinds
    assert not kinds & {"RayCluster", "PersistentVolumeClaim", "Service"}


def test_an_inference_pool_is_added_where_it_is_asked_for() -> None:
    assert meshes.of_kind(meshes.build(meshes.PLAIN), "InferencePool") == []
    assert meshes.one(meshes.build(meshes.PLAIN, has_pool=True), "InferencePool")


def test_a_configuration_that_no_configmap_holds_is_refused() -> None:
    models = [{"name": f"m{number}", "uri": f"s3://b/{'x' * 200}"} for number in range(6000)]
    content = {**meshes.PLAIN, "models": models}
    with pytest.raises(errors.ConfigInvalid, match="a ConfigMap holds 1048576"):
        manifests.build(meshes.settings(content), content, manifests.ManifestOptions())


def test_a_fault_of_the_patch_is_told_by_rule_and_field() -> None:
    content = {
        **meshes.PLAIN,
        "kubernetes": {"patch": {"authOptions": {"enableK8sTokenAuth": True, "secretName": "a"}}},
    }
    (fault,) = meshes.faults(content)
    assert fault.startswith("kubernetes.patch: enableK8sTokenAuth and secretName exclude")
    assert "rule account-token-secret, field spec.authOptions.secretName" in fault
