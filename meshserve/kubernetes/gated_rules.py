"""KubeRay's rules for tokens, and for what needs a gate (validation.go of KubeRay 1.7.0)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshserve.kubernetes import kube_names, rule_faults
from meshserve.kubernetes.rule_faults import RuleFault, entries, mapping

Faults = Iterator[RuleFault]

TOKEN_VERSION = (2, 52)
SERVICE_TOKEN_VERSION = (2, 55)
TLS_VARIABLES = ("RAY_USE_TLS", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")
TLS_VOLUME = "ray-tls"
TLS_PATH = "/etc/ray/tls"
FREE_RULES = {"DenyAllEgress": "ingressRules", "DenyAllIngress": "egressRules"}
"""By the mode of a network policy: rules for the direction that it leaves open."""


def auth_faults(spec: Mapping[str, Any], path: str) -> Faults:
    """Yield the faults of a cluster's authentication."""
    options = mapping(spec.get("authOptions"))
    field = f"{path}.authOptions"
    has_account_tokens = options.get("enableK8sTokenAuth") is True
    if options.get("mode") != "token":
        if has_account_tokens:
            message = "enableK8sTokenAuth needs mode: token"
            yield RuleFault("account-token-mode", f"{field}.mode", message)
        return
    version = rule_faults.version(spec.get("rayVersion"))
    if version is None or version < TOKEN_VERSION:
        message = f"mode: token needs rayVersion 2.52.0 or newer, got {spec.get('rayVersion')}"
        yield RuleFault("token-version", f"{path}.rayVersion", message)
    elif has_account_tokens and version < SERVICE_TOKEN_VERSION:
        message = f"enableK8sTokenAuth needs rayVersion 2.55.0, got {spec.get('rayVersion')}"
        yield RuleFault("account-token-version", f"{path}.rayVersion", message)
    if has_account_tokens and options.get("secretName"):
        message = "enableK8sTokenAuth and secretName exclude each other"
        yield RuleFault("account-token-secret", f"{field}.secretName", message)


def faults(spec: Mapping[str, Any], path: str, gates: frozenset[str]) -> Faults:
    """Yield the faults of a cluster's network policy and TLS."""
    policy = spec.get("networkPolicy")
    if policy is not None:
        yield from _needs_gate("RayClusterNetworkPolicy", f"{path}.networkPolicy", gates)
        yield from _network_policy(spec, mapping(policy), f"{path}.networkPolicy")
    options = spec.get("tlsOptions")
    if options is not None:
        yield from _needs_gate("RayClusterMTLS", f"{path}.tlsOptions", gates)
        if "RayClusterMTLS" in gates and mapping(options).get("enabled") is True:
            yield from _tls(spec, path)


def _needs_gate(gate: str, field: str, gates: frozenset[str]) -> Faults:
    if gate not in gates:
        message = (
            f"it needs an operator that runs with --feature-gates={gate}=true; "
            "if it does, name it in kubernetes.feature_gates"
        )
        yield RuleFault("feature-gate", field, message)


def _network_policy(spec: Mapping[str, Any], policy: Mapping[str, Any], field: str) -> Faults:
    free = FREE_RULES.get(str(policy.get("mode", "DenyAll")))
    parts = [("head", mapping(policy.get("head"))), ("worker", mapping(policy.get("worker")))]
    named = entries(policy.get("workerGroups"))
    parts += [(f"workerGroups[{index}]", part) for index, part in enumerate(named)]
    for place, part in parts:
        if free is not None and part.get(free):
            message = f"mode {policy['mode']} leaves that direction open"
            yield RuleFault("policy-direction", f"{field}.{place}.{free}", message)
    names = [str(group.get("groupName", "")) for group in entries(spec.get("workerGroupSpecs"))]
    for name in names:
        if not kube_names.is_dns_1123(name):
            message = f"the group {name!r} needs a name of lower-case letters, digits and '-'"
            yield RuleFault("policy-group-name", field, message)
    for index, part in enumerate(named):
        if part.get("groupName") not in names:
            message = f"there is no group {part.get('groupName')!r}"
            yield RuleFault("policy-group", f"{field}.workerGroups[{index}].groupName", message)


def _tls(spec: Mapping[str, Any], path: str) -> Faults:
    workers = entries(spec.get("workerGroupSpecs"))
    owners = [
        (f"{path}.headGroupSpec", rule_faults.ray_container(mapping(spec.get("headGroupSpec"))))
    ]
    owners += [
        (f"{path}.workerGroupSpecs[{index}]", rule_faults.ray_container(group))
        for index, group in enumerate(workers)
    ]
    owners.append((f"{path}.autoscalerOptions", mapping(spec.get("autoscalerOptions"))))
    for place, container in owners:
        for name in rule_faults.variables(container).keys() & set(TLS_VARIABLES):
            message = f"{name} is set by KubeRay while tlsOptions are given"
            yield RuleFault("tls-variables", f"{place}.env", message)
        for mount in entries(container.get("volumeMounts")):
            if mount.get("name") == TLS_VOLUME or mount.get("mountPath") == TLS_PATH:
                message = f"{TLS_PATH} and the volume {TLS_VOLUME} are KubeRay's"
                yield RuleFault("tls-mount", f"{place}.volumeMounts", message)
