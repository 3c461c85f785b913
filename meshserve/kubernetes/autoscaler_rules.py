"""KubeRay's rules for Ray's autoscaler (validation.go of KubeRay 1.7.0)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshserve.kubernetes import rule_faults
from meshserve.kubernetes.rule_faults import RuleFault, entries, mapping

Faults = Iterator[RuleFault]

V2_VARIABLE = "RAY_enable_autoscaler_v2"
START_VARIABLE = "KUBERAY_GEN_AUTOSCALER_START_CMD"
PRIORITY_VERSION = (2, 56)


def faults(spec: Mapping[str, Any], path: str) -> Faults:
    """Yield the faults of a cluster's autoscaler."""
    options = mapping(spec.get("autoscalerOptions"))
    field = f"{path}.autoscalerOptions"
    idle_s = options.get("idleTimeoutSeconds")
    if isinstance(idle_s, int) and idle_s < 0:
        message = f"idleTimeoutSeconds is {idle_s}, and may not be negative"
        yield RuleFault("idle-natural", f"{field}.idleTimeoutSeconds", message)
    if START_VARIABLE in rule_faults.variables(options):
        message = f"{START_VARIABLE} is set by KubeRay"
        yield RuleFault("autoscaler-command", f"{field}.env", message)
    yield from _versions(spec, path)
    for index, group in enumerate(entries(spec.get("workerGroupSpecs"))):
        yield from _of_group(spec, group, f"{path}.workerGroupSpecs[{index}]")


def _environment(spec: Mapping[str, Any]) -> dict[str, Any]:
    return rule_faults.variables(rule_faults.ray_container(mapping(spec.get("headGroupSpec"))))


def _is_v2(spec: Mapping[str, Any]) -> bool:
    is_asked = mapping(spec.get("autoscalerOptions")).get("version") == "v2"
    return is_asked or _environment(spec).get(V2_VARIABLE) in {"1", "true"}


def _versions(spec: Mapping[str, Any], path: str) -> Faults:
    field = f"{path}.headGroupSpec.template.spec"
    environment = _environment(spec)
    if spec.get("enableInTreeAutoscaling") is not True:
        if environment.get(V2_VARIABLE) in {"1", "true"}:
            message = f"{V2_VARIABLE} needs enableInTreeAutoscaling: true"
            yield RuleFault("autoscaler-off", f"{field}.containers[0].env", message)
        return
    version = mapping(spec.get("autoscalerOptions")).get("version")
    if version is not None and V2_VARIABLE in environment:
        message = f"autoscalerOptions.version and {V2_VARIABLE} exclude each other"
        yield RuleFault("autoscaler-version-once", f"{field}.containers[0].env", message)
    if version != "v2":
        return
    groups = [mapping(spec.get("headGroupSpec")), *entries(spec.get("workerGroupSpecs"))]
    for index, group in enumerate(groups):
        policy = rule_faults.pod_spec(group).get("restartPolicy", "")
        if policy not in {"", "Never"}:
            place = f"{path}.workerGroupSpecs[{index - 1}].template.spec" if index else field
            message = f"restartPolicy is {policy}; with autoscaler v2 it is Never, or left out"
            yield RuleFault("restart-policy", f"{place}.restartPolicy", message)


def _of_group(spec: Mapping[str, Any], group: Mapping[str, Any], place: str) -> Faults:
    if group.get("suspend") is True and spec.get("enableInTreeAutoscaling") is True:
        message = "a group can't be suspended while the autoscaler runs"
        yield RuleFault("suspend", f"{place}.suspend", message)
    idle_s = group.get("idleTimeoutSeconds")
    if isinstance(idle_s, int) and idle_s < 0:
        message = f"idleTimeoutSeconds is {idle_s}, and may not be negative"
        yield RuleFault("idle-natural", f"{place}.idleTimeoutSeconds", message)
    elif idle_s is not None and not _is_v2(spec):
        message = "idleTimeoutSeconds of a group needs autoscalerOptions.version: v2"
        yield RuleFault("idle-version", f"{place}.idleTimeoutSeconds", message)
    if not group.get("priority"):
        return
    version = rule_faults.version(spec.get("rayVersion"))
    if version is None or version < PRIORITY_VERSION:
        message = f"priority needs rayVersion 2.56.0 or newer, got {spec.get('rayVersion')}"
        yield RuleFault("priority-version", f"{place}.priority", message)
    elif not _is_v2(spec):
        message = "priority of a group needs autoscalerOptions.version: v2"
        yield RuleFault("priority-autoscaler", f"{place}.priority", message)
