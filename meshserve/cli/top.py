"""`meshserve top`: the present traffic of the mesh, refreshed in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from meshserve import errors
from meshserve.cli import (
    connection,
    deltas,
    llm_tables,
    node_rows,
    pool_lines,
    tables,
    terminal,
    units,
)
from meshserve.client import admin
from meshserve.protocol import mesh_status

MODELS_MAX = 500
"""The hottest models are looked for among this many of the ready ones, the first by name."""

ONCE_ROWS = 10
FIXED_LINES = 11
"""Lines for the headline, the totals, and the heads of the tables of workers and models."""

FIXED_LLM_LINES = 5


class Sample(NamedTuple):
    """The mesh's status and models at one moment; `at_s` is of a monotonic clock."""

    at_s: float
    status: mesh_status.MeshStatus
    models: tuple[mesh_status.ModelStatus, ...]


def top(
    once: Annotated[bool, typer.Option("--once", help="Print once and end, for scripts.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="How long to measure.")
    ] = 1.0,
    endpoint: connection.Endpoint = None,
) -> None:
    """Watch requests, hit rate, memory, LLMs and the hottest models; q or Ctrl-C ends it."""
    with connection.connect(endpoint) as client, terminal.key_presses() as wait:
        first = _sample(client)
        # A pipe or a file can't be redrawn in place.
        if once or not sys.stdout.isatty():
            wait(interval_s)
            out = terminal.out()
            out.print(view(first, _sample(client), out.width, ONCE_ROWS))
        else:
            _watch(client, first, lambda: wait(interval_s))


def _watch(client: admin.AdminClient, before: Sample, wait: Callable[[], str]) -> None:
    out = terminal.out()
    try:
        # Without rich's own refresh, which would draw the same screen four times a second.
        with Live(
            Text(f"asking {client.endpoint} …"), console=out, screen=True, auto_refresh=False
        ) as live:
            while wait() != "q":
                before = _refresh(client, before, live, out)
    except KeyboardInterrupt:
        return


def _refresh(client: admin.AdminClient, before: Sample, live: Live, out: Console) -> Sample:
    """Draw the traffic since `before`; return the new sample, or `before` without an answer."""
    try:
        after = _sample(client)
    except errors.MeshError as error:
        # A mesh that restarts will answer again soon, so `top` goes on.
        live.update(
            Group(
                Text("no answer", "bold red"),
                Text(error.message),
                Text("trying again; q ends", "dim"),
            ),
            refresh=True,
        )
        return before
    models_max = max(1, out.height - _other_lines(after.status))
    live.update(view(before, after, out.width, models_max), refresh=True)
    return after


def _other_lines(status: mesh_status.MeshStatus) -> int:
    """Return the number of lines on the screen that do not show models."""
    # An LLM that is not ready has a second line, for the reason.
    llms = sum(1 + bool(llm["reason"]) for llm in status["llms"])
    # A line between each two nodes.
    rows = list(tables.workers(status))
    lines = len(rows) + sum(bool(row.get("place")) for row in rows[1:])
    lines += len(list(pool_lines.lines(status)))
    return FIXED_LINES + lines + (llms and FIXED_LLM_LINES + llms)


def _sample(client: admin.AdminClient) -> Sample:
    status = client.status()
    # Only a model that is in memory has traffic.
    page = client.models(state="ready", limit=MODELS_MAX)
    return Sample(time.monotonic(), status, tuple(page["models"]))


def view(before: Sample, after: Sample, width: int, models_max: int) -> RenderableType:
    """Return the screen: the traffic between two samples, with at most `models_max` models."""
    # Rates are divided by the interval, so it must not be 0.
    interval_s = max(after.at_s - before.at_s, 1e-3)
    earlier = {worker["id"]: worker for worker in tables.workers(before.status)}
    traffic = {
        worker["id"]: deltas.traffic(earlier.get(worker["id"]), worker, interval_s)
        for worker in tables.workers(after.status)
    }
    llms = after.status["llms"]
    hottest = deltas.hottest(before.models, after.models, interval_s)[:models_max]
    return Group(
        _headline(after.status),
        _totals(after.status, deltas.total(traffic.values(), interval_s)),
        Text(""),
        tables.table(
            _worker_columns(after.status, traffic, width),
            list(tables.workers(after.status)),
            width,
        ),
        *pool_lines.lines(after.status),
        Text(""),
        *([llm_tables.llms(llms, width), Text("")] if llms else []),
        tables.table(MODEL_COLUMNS, hottest, width)
        if hottest
        else Text("no model is resident", "dim"),
    )


def _headline(status: mesh_status.MeshStatus) -> Text:
    models = status["models"]
    line = Text.assemble(
        ("meshserve top ", "bold"), f"{status['endpoint']} · ", tables.state(status["state"])
    )
    return line.append(
        f" · {models['resident']:,} of {models['registered']:,} models resident"
        f" · {models['failed']:,} failed",
        "dim",
    )


def _totals(status: mesh_status.MeshStatus, total: deltas.Traffic) -> Text:
    in_flight = sum(worker["in_flight"] for worker in tables.workers(status))
    parts = [
        f"{units.rate(total.requests_per_s)} req/s",
        f"hit rate {units.share(total.hits, total.hits + total.misses)}",
        f"{units.rate(total.loads_per_s)} loads/s",
        f"{units.rate(total.failures_per_s)} failures/s",
        f"{in_flight:,} in flight",
    ]
    return Text(" · ".join(parts), "bold")


def _worker_columns(
    status: mesh_status.MeshStatus, traffic: Mapping[str, deltas.Traffic], width: int
) -> list[tables.Column]:
    kept = {column.title: column for column in tables.worker_columns(status, width)}
    return [
        # Of a single node nothing is to be told.
        *([kept["node"]._replace(dropped=1)] if node_rows.has_several(status) else []),
        kept["worker"],
        kept["state"],
        tables.Column(
            "req/s", lambda row: units.rate(traffic[row["id"]].requests_per_s), is_number=True
        ),
        tables.Column(
            "hits",
            lambda row: units.share(
                traffic[row["id"]].hits, traffic[row["id"]].hits + traffic[row["id"]].misses
            ),
            is_number=True,
        ),
        *(kept[title] for title in ("models", "memory", "gpu memory") if title in kept),
        tables.Column(
            "loads/s",
            lambda row: units.rate(traffic[row["id"]].loads_per_s),
            dropped=2,
            is_number=True,
        ),
        tables.Column(
            "evictions", lambda row: units.count(row["evictions"]), dropped=2, is_number=True
        ),
        kept["in flight"]._replace(dropped=2),
        kept["restarts"],
    ]


MODEL_COLUMNS = (
    tables.Column("hottest models", lambda pair: pair[0]["name"]),
    tables.Column("version", lambda pair: pair[0]["version"], dropped=2),
    tables.Column("req/s", lambda pair: units.rate(pair[1]), is_number=True),
    tables.Column("requests", lambda pair: units.count(pair[0]["requests"]), is_number=True),
    tables.Column("worker", lambda pair: pair[0]["worker"] or "–"),
    tables.Column(
        "footprint", lambda pair: tables.footprint(pair[0]["footprint_bytes"]), is_number=True
    ),
)
