"""Workers and gateways by the machine on which they are, where there is more than one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshserve.protocol import mesh_status

LETTERS = 12
"""How many of a node id's 56 letters are shown, as in Ray's own listings."""

ELSEWHERE = "–"
"""What stands for the node of a worker that is not up."""

Row = Mapping[str, Any]


def has_several(answer: mesh_status.MeshStatus) -> bool:
    """Return whether the mesh has more than one node; one of an earlier version does not say."""
    return len(answer.get("nodes", ())) > 1


def names(answer: mesh_status.MeshStatus) -> dict[str, str]:
    """Return what each node is called, by id: its name, else its address; the head comes first."""
    rows = sorted(answer.get("nodes", ()), key=lambda row: (not row["is_head"], row["address"]))
    called = [row["name"] or row["address"] for row in rows]
    return {
        # A name that two nodes have tells nothing.
        row["id"]: name if name and called.count(name) == 1 else row["id"][:LETTERS]
        for row, name in zip(rows, called, strict=True)
    }


def by_node(answer: mesh_status.MeshStatus, rows: Iterable[Row]) -> list[Row]:
    """Return the rows in the order of their nodes; the first of each has the node's `place`."""
    called = names(answer)
    order = list(called)
    # A worker that is not up yet is on no node.
    last = len(order)
    ranked = sorted(
        rows, key=lambda row: order.index(row["node"]) if row["node"] in called else last
    )
    before: str | None = None
    placed: list[Row] = []
    for row in ranked:
        label = called.get(row["node"], ELSEWHERE)
        placed.append({**row, "place": label if label != before else ""})
        before = label
    return placed


def gateways(answer: mesh_status.MeshStatus) -> Iterator[Row]:
    """Yield a row for each node with its gateway, if it has one."""
    by_id = {row["node"]: row for row in answer["gateways"]}
    nodes = {row["id"]: row for row in answer["nodes"]}
    for id_, label in names(answer).items():
        yield {
            "name": label + (" (head)" if nodes[id_]["is_head"] else ""),
            "node_state": nodes[id_]["state"],
            "drain": _drain(nodes[id_]["drain"]),
            "id": id_[:LETTERS],
            **(by_id.get(id_) or {"state": "", "listen": "", "restarts": 0}),
        }


def _drain(drain: mesh_status.DrainStatus | None) -> str:
    if drain is None:
        return ""
    left = len(drain["remaining"])
    return f"{drain['moved']:,} moved, {drain['to_move']:,} to go" + (
        f", {left} left" if left else ""
    )
