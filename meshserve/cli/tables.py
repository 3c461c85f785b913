"""The mesh's JSON as tables that a person likes to read. Nothing here speaks to anybody."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from meshserve.cli import units

Json = Mapping[str, Any]

WIDE = 110
LEADING_WIDTH_MAX = 40
# of a node's 56: enough to tell it by, as in Ray's own listings
NODE_LETTERS = 12
GAP = 3
# what things are measured on, nothing is printed there
PAPER = Console(width=1000, file=io.StringIO())
# by whether the terminal is wide, and whether there are two kinds of memory to show
BAR_WIDTHS = {(True, False): 12, (True, True): 6, (False, False): 8, (False, True): 0}
STYLES = {
    "ready": "green",
    "starting": "yellow",
    "fetching": "yellow",
    "loading": "yellow",
    "evicting": "yellow",
    "draining": "yellow",
    "parked": "cyan",
    "asleep": "cyan",
    "absent": "dim",
    "idle": "dim",
    "failed": "bold red",
    "lost": "bold red",
}


class Column(NamedTuple):
    """A column of a table: what it says of a row. Where room is short those with the biggest `dropped` go first; those with 0 stay."""

    title: str
    cell: Callable[[Any], RenderableType]
    dropped: int = 0
    is_number: bool = False


def state(word: str) -> Text:
    """A state in its colour."""
    return Text(word, STYLES.get(word, ""))


def table(columns: Sequence[Column], rows: Sequence[Any], width: int) -> Table:
    """Rows as a table of at most `width`: some columns go, then the leading one takes several lines."""
    cells = [[_text(column.cell(row)) for row in rows] for column in columns]
    widths = [
        max([len(column.title), *map(_width, listed)])
        for column, listed in zip(columns, cells, strict=True)
    ]
    widths[0] = min(widths[0], LEADING_WIDTH_MAX)
    shown = _fitting(columns, widths, width)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place in shown:
        justify: JustifyMethod = "right" if columns[place].is_number else "left"
        drawn.add_column(columns[place].title, justify=justify, no_wrap=place > 0, overflow="fold")
    for row in zip(*(cells[place] for place in shown), strict=True):
        drawn.add_row(*row)
    return drawn


def _fitting(columns: Sequence[Column], widths: Sequence[int], width: int) -> list[int]:
    shown = list(range(len(columns)))
    for place in sorted(shown, key=lambda place: (-columns[place].dropped, -place)):
        if columns[place].dropped and sum(widths[kept] + GAP for kept in shown) - GAP > width:
            shown.remove(place)
    return shown


def _text(cell: RenderableType) -> RenderableType:
    return Text(cell) if isinstance(cell, str) else cell


def _width(cell: RenderableType) -> int:
    return Measurement.get(PAPER, PAPER.options, cell).maximum


def memory(used_bytes: int, budget_bytes: int, bar_width: int) -> RenderableType:
    """A bar, where it has any width, and the figures that it stands for."""
    if not budget_bytes:
        return "–"
    figures = Text(f"{units.size(used_bytes)} / {units.size(budget_bytes)}", no_wrap=True)
    if not bar_width:
        return figures
    style = "red" if used_bytes > budget_bytes else "green"
    drawn = Table.grid(padding=(0, 1))
    completed = min(used_bytes, budget_bytes)
    drawn.add_row(
        ProgressBar(
            total=budget_bytes,
            completed=completed,
            width=bar_width,
            complete_style=style,
            finished_style=style,
        ),
        figures,
    )
    return drawn


def status(answer: Json, endpoint: str, width: int) -> RenderableType:
    """`meshserve status`."""
    parts: list[RenderableType] = [
        Text.assemble(
            ("meshserve ", "bold"),
            f"{answer['version']} · ",
            state(answer["state"]),
            f" · {answer['endpoint'] or endpoint}",
        ),
        Text(""),
        table(worker_columns(answer, width), list(workers(answer)), width),
        Text(""),
        table(GATEWAY_COLUMNS, answer["gateways"], width),
        Text(""),
        _models_line(answer),
        *(_spread_line(each) for each in answer.get("spread", ())),
        *reasons(
            [(row["id"], row) for row in workers(answer)]
            + [(f"gateway {row['node']}", row) for row in answer["gateways"]]
        ),
    ]
    return Group(*parts)


def reasons(named: Sequence[tuple[str, Json]]) -> list[RenderableType]:
    """Why things are as they are, a line for each that says so."""
    said = [
        (name, " ".join(str(row["reason"]).split())) for name, row in named if row.get("reason")
    ]
    return (
        [Text(""), *(Text.assemble((f"{name} ", "bold red"), reason) for name, reason in said)]
        if said
        else []
    )


def workers(answer: Json) -> Iterator[Json]:
    """Every worker with its pool's name and device."""
    for pool in answer["pools"]:
        for worker in pool["workers"]:
            yield {**worker, "pool": pool["name"], "device": pool["device"]}


def worker_columns(answer: Json, width: int) -> list[Column]:
    """The columns for a mesh's workers; GPU memory where one has any."""
    has_gpu = any(worker["budget_bytes"]["gpu"] for worker in workers(answer))
    bar_width = BAR_WIDTHS[width >= WIDE, has_gpu]
    gpu = [
        Column(
            "gpu memory",
            lambda row: memory(row["booked_bytes"]["gpu"], row["budget_bytes"]["gpu"], bar_width),
        )
    ]
    return [
        Column("worker", lambda row: row["id"]),
        Column("state", lambda row: state(row["state"])),
        Column("node", lambda row: row["node"][:NODE_LETTERS], dropped=2),
        Column("device", lambda row: row["device"], dropped=2),
        Column("models", _resident, is_number=True),
        Column(
            "memory",
            lambda row: memory(row["booked_bytes"]["host"], row["budget_bytes"]["host"], bar_width),
        ),
        *(gpu if has_gpu else []),
        Column("requests", lambda row: units.count(row["requests"]), is_number=True),
        Column("failures", lambda row: units.count(row["failures"]), dropped=2, is_number=True),
        Column(
            "hits",
            lambda row: units.share(row["hits"], row["hits"] + row["misses"]),
            dropped=1,
            is_number=True,
        ),
        Column("in flight", lambda row: units.count(row["in_flight"]), dropped=2, is_number=True),
        Column("restarts", lambda row: units.count(row["restarts"]), dropped=2, is_number=True),
    ]


def _resident(row: Json) -> str:
    loading = f" +{row['loading']}" if row["loading"] else ""
    return f"{row['resident']:,}{loading}"


GATEWAY_COLUMNS = (
    Column("gateway", lambda row: row["node"][:NODE_LETTERS]),
    Column("state", lambda row: state(row["state"])),
    Column("listen", lambda row: row["listen"]),
    Column("pid", lambda row: str(row["pid"]), dropped=2, is_number=True),
    Column("envoy", lambda row: str(row["envoy_pid"]), dropped=2, is_number=True),
    Column("restarts", lambda row: units.count(row["restarts"]), is_number=True),
)


def _models_line(answer: Json) -> Text:
    models, controller = answer["models"], answer["controller"]
    line = Text.assemble(
        ("models ", "bold"),
        f"{models['registered']:,} registered · {models['resident']:,} resident · {models['loading']:,} loading · ",
    )
    line.append(f"{models['failed']:,} failed", "bold red" if models["failed"] else "")
    restarts = f" · {controller['restarts']} restarts" if controller["restarts"] else ""
    return line.append(f"    controller {controller['pid']}{restarts}", "dim")


def _spread_line(each: Json) -> Text:
    return Text.assemble(("busy   ", "bold"), f"{each['model']} is on {', '.join(each['workers'])}")


MODEL_COLUMNS = (
    Column("name", lambda row: row["name"]),
    Column("version", lambda row: row["version"]),
    Column("state", lambda row: state(row["state"])),
    Column("runtime", lambda row: row["runtime"] or "–"),
    Column("pool", lambda row: row["pool"], dropped=2),
    Column("worker", lambda row: row["worker"] or "–"),
    Column("footprint", lambda row: footprint(row["footprint_bytes"]), is_number=True),
    Column("requests", lambda row: units.count(row["requests"]), is_number=True),
    Column("pinned", lambda row: "yes" if row["pinned"] else "", dropped=2),
    Column("aliases", lambda row: ", ".join(row["aliases"]), dropped=2),
)


def footprint(by_device: Json | None) -> str:
    """Bytes by device, as far as they are known."""
    if not by_device or not any(by_device.values()):
        return "–"
    gpu = f" + {units.size(by_device['gpu'])} gpu" if by_device.get("gpu") else ""
    return f"{units.size(by_device['host'])}{gpu}"


def models(answer: Json, width: int) -> RenderableType:
    """`meshserve models list`: the table, then why those that failed did, then how to go on."""
    rows = answer["models"]
    parts: list[RenderableType] = [
        table(MODEL_COLUMNS, rows, width) if rows else Text("no models", "dim")
    ]
    parts += reasons([(row["name"], row) for row in rows])
    if answer.get("next"):
        parts += [Text(""), Text(f"There are more: --after {answer['next']}", "dim")]
    return Group(*parts)


def model(answer: Json) -> RenderableType:
    """`meshserve models show`: one model, a line for each thing known of it."""
    drawn = Table.grid(padding=(0, 2))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for title, cell in _model_lines(answer):
        if cell:
            drawn.add_row(title, cell)
    return drawn


def _model_lines(answer: Json) -> Iterator[tuple[str, RenderableType]]:
    yield "name", Text(answer["name"])
    yield "version", Text(answer["version"])
    yield "versions", Text(", ".join(answer["versions"]))
    yield "state", state(answer["state"])
    yield "reason", Text(answer.get("reason") or "", "red")
    yield "runtime", Text(answer["runtime"] or "")
    yield "uri", Text(answer["uri"])
    yield "pool", Text(answer["pool"])
    yield "worker", Text(answer["worker"] or "")
    yield "footprint", Text(footprint(answer["footprint_bytes"]))
    yield "requests", Text(units.count(answer["requests"]))
    yield "pinned", Text("yes" if answer["pinned"] else "no")
    yield "aliases", Text(", ".join(answer["aliases"]))
    yield "declared by", Text(answer["origin"])
