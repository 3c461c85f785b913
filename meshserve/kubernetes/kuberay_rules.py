"""The rules by which KubeRay's operator refuses a RayCluster.

Source: ray-operator/controllers/ray/utils/validation.go of KubeRay 1.7.0. The operator checks most
of them only after the API server has accepted the manifest, and then tells nobody but its log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshserve.kubernetes import autoscaler_rules, gated_rules, gcs_rules, kube_names, rule_faults
from meshserve.kubernetes.rule_faults import RuleFault, entries, mapping

Faults = Iterator[RuleFault]
Spec = Mapping[str, Any]
Gates = frozenset[str]

CLUSTER_NAME_MAX = 53
SERVICE_NAME_MAX = 47
UPGRADES = ("Recreate", "None")
RESOURCE_PARAMETERS = ("num-cpus", "num-gpus", "memory", "resources")


def faults(manifest: Mapping[str, Any], gates: Gates) -> Faults:
    """Yield the faults of a RayCluster, for an operator whose feature gates are `gates`."""
    metadata = mapping(manifest.get("metadata"))
    yield from name_faults(str(metadata.get("name", "")), "RayCluster", CLUSTER_NAME_MAX)
    spec = mapping(manifest.get("spec"))
    yield from _upgrade_strategy(spec)
    yield from spec_faults(spec, "spec", mapping(metadata.get("annotations")), gates)


def name_faults(name: str, kind: str, longest: int) -> Faults:
    """Yield the faults of the name of a RayCluster or RayService."""
    if len(name) > longest:
        message = f"{name!r} has {len(name)} characters; a {kind}'s name has {longest} at most"
        yield RuleFault("name-length", "metadata.name", message)
    if not kube_names.is_dns_1035(name):
        message = (
            f"{name!r}: a name is lower-case letters, digits and '-', and begins with a letter"
        )
        yield RuleFault("name-dns-1035", "metadata.name", message)


def spec_faults(spec: Spec, path: str, annotations: Mapping[str, Any], gates: Gates) -> Faults:
    """Yield the faults of a Ray cluster's specification, which is at `path` of its manifest."""
    for place, group in _groups(spec, path):
        if not entries(rule_faults.pod_spec(group).get("containers")):
            yield RuleFault(
                "group-container", f"{place}.template.spec", "a group needs a container"
            )
        yield from _resources(group, place)
        yield from _labels(group, place)
    yield from _replicas(spec, path)
    checks: tuple[Callable[..., Faults], ...] = (
        autoscaler_rules.faults,
        gated_rules.auth_faults,
    )
    for check in checks:
        yield from check(spec, path)
    yield from gcs_rules.faults(spec, path, annotations, gates)
    yield from gated_rules.faults(spec, path, gates)


def _groups(spec: Spec, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield f"{path}.headGroupSpec", mapping(spec.get("headGroupSpec"))
    yield from worker_groups(spec, path)


def worker_groups(spec: Spec, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each worker group with its place in the manifest."""
    for index, group in enumerate(entries(spec.get("workerGroupSpecs"))):
        yield f"{path}.workerGroupSpecs[{index}]", group


def _upgrade_strategy(spec: Spec) -> Faults:
    kind = mapping(spec.get("upgradeStrategy")).get("type")
    if kind is not None and kind not in UPGRADES:
        message = f"{kind!r}: a RayCluster's upgrade is one of {', '.join(UPGRADES)}"
        yield RuleFault("upgrade-type", "spec.upgradeStrategy.type", message)


def _resources(group: Mapping[str, Any], place: str) -> Faults:
    parameters = mapping(group.get("rayStartParams"))
    given = [key for key in RESOURCE_PARAMETERS if parameters.get(key)]
    if given and group.get("resources"):
        message = f"{given[0]} is given in rayStartParams and in resources: give it once"
        yield RuleFault("resources-once", f"{place}.resources", message)


def _labels(group: Mapping[str, Any], place: str) -> Faults:
    if "labels" in mapping(group.get("rayStartParams")):
        message = "labels are no start parameter: use the group's own labels"
        yield RuleFault("labels-parameter", f"{place}.rayStartParams.labels", message)
    for key, value in mapping(group.get("labels")).items():
        if not kube_names.is_label_key(str(key)):
            message = f"{key!r} is no key of a label"
            yield RuleFault("label-syntax", f"{place}.labels", message)
        if not kube_names.is_label_value(str(value)):
            message = f"{value!r} is no value of a label: 63 letters, digits, '.', '_', '-' at most"
            yield RuleFault("label-syntax", f"{place}.labels.{key}", message)


def _replicas(spec: Spec, path: str) -> Faults:
    scales = spec.get("enableInTreeAutoscaling") is True
    for place, group in worker_groups(spec, path):
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if not scales and (least is None or most is None):
            message = "without autoscaling a group needs minReplicas and maxReplicas"
            yield RuleFault("replicas-given", f"{place}.minReplicas", message)
        for key, value in (("minReplicas", least), ("maxReplicas", most)):
            if isinstance(value, int) and value < 0:
                yield RuleFault("replicas-natural", f"{place}.{key}", f"{value} is negative")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            message = f"minReplicas is {least}, but maxReplicas only {most}"
            yield RuleFault("replicas-order", f"{place}.minReplicas", message)
