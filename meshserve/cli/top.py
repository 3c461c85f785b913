"""`meshserve top`: what the mesh does now, refreshed in place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from meshserve import errors
from meshserve.cli import deltas, key_presses, llm_tables, mesh, tables, terminal, units

Json = Mapping[str, Any]

# the hottest are looked for among so many resident models
MODELS_MAX = 500
ONCE_ROWS = 10
# header, totals, and the heads of two tables
LINES_AROUND = 11
LLM_LINES_AROUND = 5


class Sample(NamedTuple):
    """What the mesh said at one moment."""

    at_s: float
    status: Json
    models: tuple[Json, ...]


def top(
    once: Annotated[bool, typer.Option("--once", help="Print once and end, for scripts.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.1, metavar="SECONDS", help="How long to measure.")
    ] = 1.0,
    endpoint: mesh.Endpoint = None,
) -> None:
    """Watch requests, hit rate, memory, LLMs and the hottest models; q or Ctrl-C ends it."""
    with mesh.connect(endpoint) as there:
        first = _sample(there)
        with key_presses.pressed() as wait:
            if once or not sys.stdout.isatty():
                wait(interval_s)
                out = terminal.out()
                out.print(view(first, _sample(there), out.width, ONCE_ROWS))
            else:
                _watch(there, first, lambda: wait(interval_s))


def _watch(there: mesh.MeshConnection, before: Sample, wait: Callable[[], str]) -> None:
    out = terminal.out()
    try:
        with Live(
            Text(f"asking {there.endpoint} …"), console=out, screen=True, auto_refresh=False
        ) as live:
            while wait() != "q":
                before = _refreshed(there, before, live, out)
    except KeyboardInterrupt:
        return


def _refreshed(there: mesh.MeshConnection, before: Sample, live: Live, out: Console) -> Sample:
    """Show what is new. A mesh that doesn't answer may come back: that is said, and asked again."""
    try:
        after = _sample(there)
    except errors.MeshError as error:
        live.update(
            Group(
                Text("no answer", "bold red"),
                Text(error.message),
                Text("trying again; q ends", "dim"),
            ),
            refresh=True,
        )
        return before
    live.update(
        view(before, after, out.width, max(1, out.height - _lines_taken(after.status))),
        refresh=True,
    )
    return after


def _lines_taken(status: Json) -> int:
    """Lines that the hottest models can't have. LLMs have a table with a head, and a line each, or two where something is wrong."""
    llms = (
        LLM_LINES_AROUND + sum(1 + bool(each["reason"]) for each in status["llms"])
        if status["llms"]
        else 0
    )
    return LINES_AROUND + len(list(tables.workers(status))) + llms


def _sample(there: mesh.MeshConnection) -> Sample:
    status = there.status().json()
    models = there.models(state="ready", sort="requests", limit=MODELS_MAX).json()["models"]
    return Sample(time.monotonic(), status, tuple(models))


def view(before: Sample, after: Sample, width: int, models_max: int) -> RenderableType:
    """Two samples as a picture of the time between them."""
    interval_s = max(after.at_s - before.at_s, 1e-3)
    earlier = {worker["id"]: worker for worker in tables.workers(before.status)}
    did = {
        worker["id"]: deltas.traffic(earlier.get(worker["id"]), worker, interval_s)
        for worker in tables.workers(after.status)
    }
    hottest = deltas.hottest(before.models, after.models, interval_s)[:models_max]
    return Group(
        _headline(after.status),
        _totals(after.status, deltas.together(did.values(), interval_s)),
        Text(""),
        tables.table(
            _worker_columns(after.status, did, width), list(tables.workers(after.status)), width
        ),
        Text(""),
        *([llm_tables.llms(after.status, width), Text("")] if after.status["llms"] else []),
        tables.table(MODEL_COLUMNS, hottest, width)
        if hottest
        else Text("no model is resident", "dim"),
    )


def _headline(status: Json) -> Text:
    models = status["models"]
    line = Text.assemble(
        ("meshserve top ", "bold"), f"{status['endpoint']} · ", tables.state(status["state"])
    )
    return line.append(
        f" · {models['resident']:,} of {models['registered']:,} models resident · {models['failed']:,} failed",
        "dim",
    )


def _totals(status: Json, total: deltas.Traffic) -> Text:
    in_flight = sum(worker["in_flight"] for worker in tables.workers(status))
    parts = [
        f"{units.rate(total.requests_per_s)} req/s",
        f"hit rate {units.share(total.hits, total.hits + total.misses)}",
        *_latencies(status),
        f"{units.rate(total.loads_per_s)} loads/s",
        f"{units.rate(total.failures_per_s)} failures/s",
        f"{in_flight:,} in flight",
    ]
    return Text(" · ".join(parts), "bold")


def _latencies(answer: Json) -> list[str]:
    measured = answer.get("latency_s") or {}
    return [
        f"{quantile} {units.duration(measured[quantile])}"
        for quantile in ("p50", "p99")
        if measured.get(quantile) is not None
    ]


def _worker_columns(
    status: Json, did: Mapping[str, deltas.Traffic], width: int
) -> list[tables.Column]:
    kept = {column.title: column for column in tables.worker_columns(status, width)}
    return [
        kept["worker"],
        kept["state"],
        tables.Column(
            "req/s", lambda row: units.rate(did[row["id"]].requests_per_s), is_number=True
        ),
        tables.Column(
            "hits",
            lambda row: units.share(
                did[row["id"]].hits, did[row["id"]].hits + did[row["id"]].misses
            ),
            is_number=True,
        ),
        *(kept[title] for title in ("models", "memory", "gpu memory") if title in kept),
        tables.Column(
            "loads/s", lambda row: units.rate(did[row["id"]].loads_per_s), dropped=2, is_number=True
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
