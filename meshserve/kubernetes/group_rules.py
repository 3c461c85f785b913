"""What groups of pods must hold: their pool's workers, their LLM's engine, names that fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from meshserve import config
from meshserve.config import diagnostics
from meshserve.kubernetes import kube_names, pod_groups

Faults = Iterator[config.Diagnostic]
Path = diagnostics.Path


def faults(settings: config.Config) -> Faults:
    """Yield the faults of the groups, and of what `kubernetes.groups` says of them."""
    groups = pod_groups.plan(settings)
    yield from _unknown(settings, groups)
    yield from _names(groups)
    for group in groups:
        yield from _replicas(group)
        yield from label_faults((*_place(group), "node_selector"), group.section.node_selector)
        if group.origin[0] == "pools":
            yield from _pool(settings, group)
    for index in range(len(settings.llms)):
        yield from _llm(settings, groups, index)
    if not any(group.replicas_min for group in groups):
        message = (
            "all groups may have no pods, and then no gateway takes requests: give one of them "
            "replicas.min of 1 at least"
        )
        yield config.Diagnostic(("kubernetes", "groups"), message)


def _place(group: pod_groups.PodGroup) -> Path:
    return ("kubernetes", "groups", group.name)


def _unknown(settings: config.Config, groups: tuple[pod_groups.PodGroup, ...]) -> Faults:
    known = [group.name for group in groups]
    for name in settings.kubernetes.groups:
        if name not in known:
            hint = diagnostics.did_you_mean(name, known)
            message = f"there is no such group{hint}; there are {', '.join(known)}"
            yield config.Diagnostic(("kubernetes", "groups", name), message)


def _names(groups: tuple[pod_groups.PodGroup, ...]) -> Faults:
    counts = Counter(group.name for group in groups)
    for group in groups:
        if not kube_names.is_dns_1123(group.name):
            message = (
                f"its group of pods would be named {group.name!r}: Kubernetes takes 63 letters, "
                f"digits and '-', and one of them at each end"
            )
            yield config.Diagnostic(group.origin, message)
        if counts[group.name] > 1:
            message = f"another pool or LLM has the group {group.name} too: choose another name"
            yield config.Diagnostic(group.origin, message)


def _replicas(group: pod_groups.PodGroup) -> Faults:
    path = (*_place(group), "replicas")
    if group.replicas_min > group.replicas_max:
        message = f"min is {group.replicas_min}, but max only {group.replicas_max}"
        yield config.Diagnostic((*path, "min"), message)
    if group.replicas_max == 0:
        yield config.Diagnostic((*path, "max"), "a group without pods serves nothing")


def _pool(settings: config.Config, group: pod_groups.PodGroup) -> Faults:
    pool = settings.pools[str(group.origin[1])]
    bounds = pod_groups.worker_bounds(pool, group)
    workers = bounds[1]
    replicas = (group.replicas_min, group.replicas_max)
    in_pod = pod_groups.workers_in_pod(bounds, replicas)
    if pool.device == "cpu" and group.gpus:
        message = f"a CPU group has no GPUs: the pool's device is cpu, but gpus is {group.gpus}"
        yield config.Diagnostic((*_place(group), "gpus"), message)
    if pool.device == "cuda" and group.gpus < in_pod:
        pods = group.replicas_min if bounds[0] == bounds[1] else group.replicas_max
        message = f"{workers} workers need a GPU each, but {pods} pods have {group.gpus} each"
        yield config.Diagnostic((*_place(group), "gpus"), message)
    if group.replicas_max > workers:
        message = f"{group.replicas_max} pods, but only {workers} workers: some would do nothing"
        yield config.Diagnostic((*_place(group), "replicas"), message)
    if group.memory_bytes < pool.memory * in_pod + group.shared_bytes:
        message = (
            f"{kube_names.quantity(group.memory_bytes)} is less than {in_pod} workers of "
            f"{kube_names.quantity(pool.memory)} and /dev/shm may use: Kubernetes would kill them"
        )
        yield config.Diagnostic((*_place(group), "memory"), message)


def _llm(settings: config.Config, groups: tuple[pod_groups.PodGroup, ...], index: int) -> Faults:
    llm = settings.llms[index]
    name = pod_groups.llm_group_name(llm)
    group = next(group for group in groups if group.name == name)
    needed = pod_groups.engine_gpus(llm) if pod_groups.is_on_gpus(settings, llm) else 0
    path = (*_place(group), "gpus")
    if not needed and group.gpus:
        message = (
            f"a CPU group has no GPUs: LLM {llm.name}'s device is cpu, but gpus is {group.gpus}"
        )
        yield config.Diagnostic(path, message)
    if group.gpus < needed:
        message = (
            f"an engine of {llm.name} needs {needed} GPUs of one pod, but gpus is {group.gpus}"
        )
        yield config.Diagnostic(path, message)
    if group.replicas_max < llm.replicas.largest and group.gpus < needed * llm.replicas.largest:
        message = (
            f"{llm.name} has up to {llm.replicas.largest} replicas, but its group only "
            f"{group.replicas_max} pods"
        )
        yield config.Diagnostic((*_place(group), "replicas", "max"), message)


def label_faults(path: Path, labels: Mapping[str, str]) -> Faults:
    """Yield the faults of labels that are given at `path`."""
    for key, value in labels.items():
        if not kube_names.is_label_key(key):
            yield config.Diagnostic((*path, key), f"{key!r} is no key of a label")
        elif not kube_names.is_label_value(value):
            yield config.Diagnostic((*path, key), f"{value!r} is no value of a label")
