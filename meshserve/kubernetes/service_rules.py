"""The rules by which KubeRay's operator refuses a RayService (validation.go of KubeRay 1.7.0)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from meshserve.kubernetes import kuberay_rules
from meshserve.kubernetes.rule_faults import RuleFault, mapping

Faults = Iterator[RuleFault]

TIMEOUT_ANNOTATION = "ray.io/initializing-timeout"
DURATION = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
PERCENT_MAX = 100
CLUSTER = "spec.rayClusterConfig"
STRATEGY = "spec.upgradeStrategy"


def faults(manifest: Mapping[str, Any], gates: frozenset[str]) -> Faults:
    """Yield the faults of a RayService, for an operator whose feature gates are `gates`."""
    metadata = mapping(manifest.get("metadata"))
    annotations = mapping(metadata.get("annotations"))
    name = str(metadata.get("name", ""))
    yield from kuberay_rules.name_faults(name, "RayService", kuberay_rules.SERVICE_NAME_MAX)
    yield from _timeout(annotations)
    spec = mapping(manifest.get("spec"))
    cluster = mapping(spec.get("rayClusterConfig"))
    yield from kuberay_rules.spec_faults(cluster, CLUSTER, annotations, gates)
    yield from _of_cluster(cluster)
    delay_s = spec.get("rayClusterDeletionDelaySeconds")
    if isinstance(delay_s, int) and delay_s < 0:
        message = f"{delay_s} is negative"
        yield RuleFault("deletion-delay", "spec.rayClusterDeletionDelaySeconds", message)
    yield from _upgrade(spec, cluster)


def _timeout(annotations: Mapping[str, Any]) -> Faults:
    text = str(annotations.get(TIMEOUT_ANNOTATION) or "")
    if text and not _is_positive(text):
        message = f"{text!r}: expected a positive duration such as 5m, or seconds"
        field = f"metadata.annotations.{TIMEOUT_ANNOTATION}"
        yield RuleFault("initializing-timeout", field, message)


def _is_positive(text: str) -> bool:
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text) > 0
    parts = list(DURATION.finditer(text))
    is_whole = "".join(part[0] for part in parts) == text
    return is_whole and not text.startswith("-") and any(float(part[1]) for part in parts)


def _of_cluster(cluster: Mapping[str, Any]) -> Faults:
    if mapping(cluster.get("authOptions")).get("enableK8sTokenAuth") is True:
        message = "enableK8sTokenAuth can't be used with a RayService"
        yield RuleFault("account-token-service", f"{CLUSTER}.authOptions", message)
    head = mapping(cluster.get("headGroupSpec"))
    if mapping(mapping(head.get("headService")).get("metadata")).get("name"):
        field = f"{CLUSTER}.headGroupSpec.headService.metadata.name"
        yield RuleFault("head-service-name", field, "KubeRay names the head's Service itself")
    if mapping(cluster.get("upgradeStrategy")).get("type") is not None:
        message = "a cluster of a RayService has no upgrade of its own"
        yield RuleFault("upgrade-owner", f"{CLUSTER}.upgradeStrategy.type", message)


def _upgrade(spec: Mapping[str, Any], cluster: Mapping[str, Any]) -> Faults:
    strategy = mapping(spec.get("upgradeStrategy"))
    kind = strategy.get("type")
    if kind is not None and kind not in UPGRADES:
        message = f"{kind!r}: a RayService's upgrade is one of {', '.join(UPGRADES)}"
        yield RuleFault("upgrade-type", f"{STRATEGY}.type", message)
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    if cluster.get("enableInTreeAutoscaling") is not True:
        message = "an incremental upgrade needs enableInTreeAutoscaling: true"
        yield RuleFault("incremental-autoscaler", f"{CLUSTER}.enableInTreeAutoscaling", message)
    options = strategy.get("clusterUpgradeOptions")
    if options is None:
        message = "an incremental upgrade needs clusterUpgradeOptions"
        yield RuleFault("incremental-options", f"{STRATEGY}.clusterUpgradeOptions", message)
        return
    yield from _increments(mapping(options))


def _increments(options: Mapping[str, Any]) -> Faults:
    field = f"{STRATEGY}.clusterUpgradeOptions"
    surge, step = options.get("maxSurgePercent", PERCENT_MAX), options.get("stepSizePercent")
    if not _is_within(surge, 0, PERCENT_MAX):
        message = f"maxSurgePercent is {surge}, and must be from 0 to 100"
        yield RuleFault("incremental-surge", f"{field}.maxSurgePercent", message)
    if not _is_within(step, 0, PERCENT_MAX):
        message = f"stepSizePercent is {step}, and must be from 0 to 100"
        yield RuleFault("incremental-step", f"{field}.stepSizePercent", message)
    elif isinstance(surge, int) and isinstance(step, int) and step > surge:
        message = f"stepSizePercent is {step}, but maxSurgePercent only {surge}"
        yield RuleFault("incremental-order", f"{field}.stepSizePercent", message)
    interval_s = options.get("intervalSeconds")
    if not (isinstance(interval_s, int) and interval_s > 0):
        message = f"intervalSeconds is {interval_s}, and must be more than 0"
        yield RuleFault("incremental-interval", f"{field}.intervalSeconds", message)
    if not options.get("gatewayClassName"):
        message = "an incremental upgrade needs a gatewayClassName"
        yield RuleFault("incremental-gateway", f"{field}.gatewayClassName", message)


def _is_within(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and least <= value <= most
