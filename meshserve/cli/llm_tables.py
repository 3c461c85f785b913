"""The LLMs of a mesh as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from meshserve.cli import tables, units
from meshserve.protocol import mesh_status

Row = Mapping[str, Any]


def llms(rows: Sequence[mesh_status.LlmStatus], width: int) -> RenderableType:
    """Return the LLMs as a table, followed by the reasons why replicas are not ready."""
    return Group(
        Text(""), tables.table(COLUMNS, rows, width), *tables.reasons(list(_with_reasons(rows)))
    )


def _with_reasons(rows: Sequence[mesh_status.LlmStatus]) -> Iterator[tuple[str, Row]]:
    for row in rows:
        replicas: list[tuple[str, Row]] = [
            (replica["id"], replica) for replica in row["replicas"] if replica["reason"]
        ]
        # Without a replica the LLM itself has the reason of its last failure.
        yield from replicas or [(row["name"], row)]


def _replicas(row: Row) -> str:
    """Return `1`, or `1 of 2` where one replica is not ready."""
    ready = sum(replica["state"] == "ready" for replica in row["replicas"])
    return f"{ready}" if ready == len(row["replicas"]) else f"{ready} of {len(row['replicas'])}"


def _sum(row: Row, key: str) -> float:
    return sum(float(replica[key]) for replica in row["replicas"])


def _worst(row: Row, key: str) -> float:
    return max((float(replica[key]) for replica in row["replicas"]), default=0.0)


def _time(time_s: float) -> str:
    return units.duration(time_s) if time_s else "–"


COLUMNS = (
    tables.Column("llm", lambda row: row["name"]),
    tables.Column("state", lambda row: tables.state(row["state"])),
    tables.Column("device", lambda row: row["device"], dropped=3),
    tables.Column("replicas", _replicas, is_number=True),
    tables.Column("held", lambda row: units.count(row["held"]), dropped=1, is_number=True),
    tables.Column("running", lambda row: units.count(_sum(row, "running")), is_number=True),
    tables.Column("waiting", lambda row: units.count(_sum(row, "waiting")), is_number=True),
    tables.Column("tokens/s", lambda row: units.rate(_sum(row, "tokens_per_s")), is_number=True),
    tables.Column("ttft p50", lambda row: _time(_worst(row, "ttft_p50_s")), is_number=True),
    tables.Column("p95", lambda row: _time(_worst(row, "ttft_p95_s")), dropped=1, is_number=True),
    tables.Column("kv used", lambda row: f"{100 * _worst(row, 'kv_used'):.0f} %", is_number=True),
    tables.Column("starts", lambda row: units.count(row["starts"]), dropped=2, is_number=True),
    tables.Column("took", lambda row: _time(row["start_s"] or 0.0), dropped=2, is_number=True),
    tables.Column("wakes", lambda row: units.count(row["wakes"]), dropped=3, is_number=True),
)
