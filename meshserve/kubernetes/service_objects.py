"""What stands around the pods: the Service, budgets of disruptions, network policies, metrics."""

from __future__ import annotations

from typing import Any

from meshserve import config
from meshserve.kubernetes import pod_config, pod_groups, pod_paths, pod_templates

Manifest = dict[str, Any]
Groups = tuple[pod_groups.PodGroup, ...]

OPERATOR_LABELS = {"app.kubernetes.io/name": "kuberay-operator"}
SCRAPE_INTERVAL = "30s"


def _selector(settings: config.Config, **labels: str) -> dict[str, str]:
    chosen = {f"meshserve/{key}": value for key, value in labels.items()}
    return {"meshserve/mesh": settings.kubernetes.name, **chosen}


def _object(version: str, kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def service(settings: config.Config) -> Manifest:
    """Return the Service of the one port: it leads to all pods whose gateway is ready."""
    port = pod_config.gateway_port(settings)
    spec = {
        "type": "ClusterIP",
        "selector": _selector(settings, role="worker"),
        "ports": [{"name": pod_paths.GATEWAY, "port": port, "targetPort": port}],
    }
    return _object("v1", "Service", f"{settings.kubernetes.name}-gateway", spec)


def disruption_budgets(
    settings: config.Config, groups: Groups, *, is_served: bool
) -> list[Manifest]:
    """Return a budget for each group, and one that keeps a head that nothing can replace.

    No pod is in two of them: Kubernetes would evict it never.
    """
    budgets = [_budget(settings, group.name, 1, group=group.name) for group in groups]
    if settings.kubernetes.gcs.backend == "none" and not is_served:
        budgets.append(_budget(settings, "head", 0, role="head"))
    return budgets


def _budget(settings: config.Config, name: str, unavailable: int, **labels: str) -> Manifest:
    spec = {
        "maxUnavailable": unavailable,
        "selector": {"matchLabels": _selector(settings, **labels)},
        # A pod that is not ready serves nobody, and must not hold up the drain of its node.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return _object("policy/v1", "PodDisruptionBudget", f"{settings.kubernetes.name}-{name}", spec)


def network_policies(settings: config.Config, *, is_served: bool) -> list[Manifest]:
    """Return policies that close all ports of the pods but the gateways'.

    They bound what comes in. What goes out stays open: models and weights come from anywhere, and
    the address of Kubernetes' own API has no portable form.
    """
    mesh = {"matchLabels": _selector(settings)}
    port = {"protocol": "TCP", "port": pod_config.gateway_port(settings)}
    rules = [
        ("inside", mesh, {"from": [{"podSelector": mesh}]}),
        ("clients", mesh, {"from": [_clients(settings)], "ports": [port]}),
    ]
    if is_served:
        head = {"matchLabels": _selector(settings, role="head")}
        operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR_LABELS}}
        dashboard = {"protocol": "TCP", "port": pod_paths.DASHBOARD_PORT}
        rules.append(("operator", head, {"from": [operator], "ports": [dashboard]}))
    return [
        _object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            f"{settings.kubernetes.name}-{name}",
            {"podSelector": pods, "policyTypes": ["Ingress"], "ingress": [rule]},
        )
        for name, pods, rule in rules
    ]


def _clients(settings: config.Config) -> Manifest:
    labels = settings.kubernetes.clients
    if labels is None and not settings.gateway.keys:
        # Without keys whoever reaches a gateway is an admin.
        return {"podSelector": {}}
    return {"namespaceSelector": {"matchLabels": dict(labels)} if labels else {}}


def pod_monitor(settings: config.Config) -> Manifest:
    """Return the PodMonitor for Prometheus' operator.

    It asks the head's gateway alone, because each gateway's page is that of the whole mesh.
    """
    endpoint: Manifest = {
        "portNumber": pod_config.gateway_port(settings),
        "path": "/metrics",
        "interval": SCRAPE_INTERVAL,
    }
    if settings.gateway.keys:
        key = {"name": pod_templates.secret_name(settings), "key": pod_paths.CANARY_VARIABLE}
        endpoint["authorization"] = {"credentials": key}
    spec = {
        "selector": {"matchLabels": _selector(settings, role="head")},
        "podMetricsEndpoints": [endpoint],
    }
    return _object("monitoring.coreos.com/v1", "PodMonitor", settings.kubernetes.name, spec)


def inference_pool(settings: config.Config) -> Manifest:
    """Return an InferencePool of our gateways, for the Gateway API's inference extension.

    Its endpoint picker, a Service `NAME-epp` on port 9002, is somebody else's.
    """
    name = settings.kubernetes.name
    spec = {
        "selector": {"matchLabels": _selector(settings, role="worker")},
        "targetPorts": [{"number": pod_config.gateway_port(settings)}],
        "endpointPickerRef": {
            "name": f"{name}-epp",
            "port": {"number": 9002},
            # Any gateway reaches every model, so that requests may go on without a picker.
            "failureMode": "FailOpen",
        },
    }
    return _object("inference.networking.k8s.io/v1", "InferencePool", name, spec)
