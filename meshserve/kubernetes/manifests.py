"""All objects of a configuration, and the faults for which none is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from meshserve import config, errors
from meshserve.kubernetes import (
    cluster_objects,
    config_rules,
    kuberay_rules,
    pod_config,
    pod_groups,
    service_objects,
    service_rules,
)

Manifest = dict[str, Any]

CONFIG_BYTES_MAX = 1 << 20
"""What a ConfigMap may hold, by Kubernetes' own limit."""


class ManifestOptions(NamedTuple):
    """What is asked for beside the configuration."""

    is_served: bool = False
    has_inference_pool: bool = False


def build(
    settings: config.Config, content: Mapping[str, Any], options: ManifestOptions
) -> tuple[Manifest, ...]:
    """Return the objects in the order in which they are applied.

    `settings` and `content` are those of `config.load_elsewhere`, and have no `faults`. Raises
    ConfigInvalid if the configuration is too long for Kubernetes.
    """
    groups = pod_groups.plan(settings)
    objects = [_config_map(settings, content, groups)]
    objects += service_objects.network_policies(settings, is_served=options.is_served)
    objects += service_objects.disruption_budgets(settings, groups, is_served=options.is_served)
    objects.append(service_objects.pod_monitor(settings))
    if options.has_inference_pool:
        objects.append(service_objects.inference_pool(settings))
    if options.is_served:
        objects.append(cluster_objects.ray_service(settings, groups))
    else:
        objects.append(service_objects.service(settings))
        objects.append(cluster_objects.state_claim(settings))
        objects.append(cluster_objects.ray_cluster(settings, groups))
    return tuple(_labelled(settings, manifest) for manifest in objects)


def _config_map(
    settings: config.Config, content: Mapping[str, Any], groups: tuple[pod_groups.PodGroup, ...]
) -> Manifest:
    result = pod_config.config_map(settings, content, groups)
    size_bytes = sum(len(text.encode()) for text in result["data"].values())
    if size_bytes > CONFIG_BYTES_MAX:
        raise errors.ConfigInvalid(
            f"the configuration has {size_bytes} bytes, and a ConfigMap holds {CONFIG_BYTES_MAX}: "
            "register some of its models by the management API, or serve a repository"
        )
    return result


def _labelled(settings: config.Config, manifest: Manifest) -> Manifest:
    labels = {"app.kubernetes.io/name": "meshserve", "meshserve/mesh": settings.kubernetes.name}
    metadata = {"namespace": settings.kubernetes.namespace, "labels": labels}
    return {**manifest, "metadata": {**manifest["metadata"], **metadata}}


def faults(settings: config.Config, options: ManifestOptions) -> Iterator[config.Diagnostic]:
    """Yield what Kubernetes, KubeRay or the mesh in its pods would refuse."""
    own = list(config_rules.faults(settings, is_served=options.is_served))
    yield from own
    if own:
        # Groups of a faulty plan would have the same faults once more, in KubeRay's words.
        return
    groups = pod_groups.plan(settings)
    gates = frozenset(settings.kubernetes.feature_gates)
    if options.is_served:
        manifest = cluster_objects.ray_service(settings, groups)
        results = service_rules.faults(manifest, gates)
    else:
        results = kuberay_rules.faults(cluster_objects.ray_cluster(settings, groups), gates)
    for fault in results:
        yield config.Diagnostic(_origin(fault.field), str(fault))


def _origin(field: str) -> tuple[str, ...]:
    # What our own keys make is right, so that a wrong field comes from the name or the patch.
    return ("kubernetes", "name" if field == "metadata.name" else "patch")
