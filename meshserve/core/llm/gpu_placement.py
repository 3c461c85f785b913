"""Where a replica's processes go: a function of what the nodes have free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from meshserve.core.values import llm_spec

CPU = llm_spec.ReplicaPlan()


class Placement(NamedTuple):
    """A plan, and how many GPUs of which node it takes."""

    plan: llm_spec.ReplicaPlan
    takes: Mapping[str, int]


def place(gpus: int, nodes: Sequence[llm_spec.NodeCapacity]) -> Placement | None:
    """Where so many GPUs are free: on one node if any node has so many at all, else on several; None: they are not.

    Of several nodes that would do, the one that is left with the least, so that big ones find a place later.
    """
    if any(node.gpus >= gpus for node in nodes):
        fitting = [node for node in nodes if node.gpus_free >= gpus]
        return (
            _on_one(gpus, min(fitting, key=lambda node: (node.gpus_free, node.node)))
            if fitting
            else None
        )
    return _on_several(gpus, nodes) if sum(node.gpus_free for node in nodes) >= gpus else None


def _on_one(gpus: int, node: llm_spec.NodeCapacity) -> Placement:
    return Placement(llm_spec.ReplicaPlan((gpus,), "mp", node.node), {node.node: gpus})


def _on_several(gpus: int, nodes: Sequence[llm_spec.NodeCapacity]) -> Placement:
    takes: dict[str, int] = {}
    left = gpus
    for node in sorted(nodes, key=lambda node: (-node.gpus_free, node.node)):
        taken = min(left, node.gpus_free)
        left -= taken
        if taken > 0:
            takes[node.node] = taken
    return Placement(llm_spec.ReplicaPlan((1,) * gpus, "ray"), takes)


def missing(gpus: int, nodes: Sequence[llm_spec.NodeCapacity], holders: Mapping[str, int]) -> str:
    """What is missing for so many GPUs, and what holds it: `holders` are engines with their GPUs, the rest is others'."""
    total = sum(node.gpus for node in nodes)
    if total < gpus:
        return f"it needs {_gpus(gpus)} and the cluster has {total}"
    if not any(node.gpus >= gpus for node in nodes):
        free, where = sum(node.gpus_free for node in nodes), "the cluster"
    else:
        best = max(nodes, key=lambda node: (node.gpus_free, node.gpus, node.node))
        free, where = best.gpus_free, f"one node: {best.node}" if len(nodes) > 1 else best.node
    held = [f"{name} holds {count}" for name, count in sorted(holders.items())]
    rest = total - sum(node.gpus_free for node in nodes) - sum(holders.values())
    others = [f"others hold {rest}"] if rest > 0 else []
    return f"it needs {_gpus(gpus)} and {free} are free on {where}" + "".join(
        f"; {each}" for each in (*held, *others)
    )


def _gpus(count: int) -> str:
    return f"{count} GPU{'' if count == 1 else 's'}"
