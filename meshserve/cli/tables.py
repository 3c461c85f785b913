"""The answers of the management API as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from meshserve.cli import column_fit, model_lines, node_rows, pool_lines, units
from meshserve.protocol import mesh_status

Row = Mapping[str, Any]
LETTERS = node_rows.LETTERS

WIDE = 110
LEADING_WIDTH_MAX = 40
# Widths of memory bars, by whether the terminal is wide and whether GPU memory has a column too.
BAR_WIDTHS = {(True, False): 12, (True, True): 6, (False, False): 0, (False, True): 0}
STYLES = {
    "ready": "green",
    "starting": "yellow",
    "fetching": "yellow",
    "loading": "yellow",
    "evicting": "yellow",
    "draining": "yellow",
    "moving": "yellow",
    "leaving": "yellow",
    "drained": "cyan",
    "parked": "cyan",
    "asleep": "cyan",
    "absent": "dim",
    "idle": "dim",
    "failed": "bold red",
    "lost": "bold red",
}


class Column(NamedTuple):
    """A column of a table; `cell` gives its content for a row.

    If the table is too wide, columns with the biggest `dropped` are left out first; columns with 0
    always stay.
    """

    title: str
    cell: Callable[[Any], RenderableType]
    dropped: int = 0
    is_number: bool = False


def state(word: str) -> Text:
    """Return a state in its colour."""
    return Text(word, STYLES.get(word, ""))


def table(columns: Sequence[Column], rows: Sequence[Any], width: int) -> Table:
    """Return rows as a table of at most `width` columns of the terminal.

    Columns are dropped until the table fits; the leading one may take several lines.
    """
    cells = [[column_fit.as_text(column.cell(row)) for row in rows] for column in columns]
    widths = [
        max([len(column.title), *map(column_fit.cell_width, column_cells)])
        for column, column_cells in zip(columns, cells, strict=True)
    ]
    # A long name is folded, so that it does not push other columns out.
    widths[0] = min(widths[0], LEADING_WIDTH_MAX)
    # Columns are dropped whole: cells that are cut or wrapped are harder to read than missing ones.
    shown = column_fit.fitting([column.dropped for column in columns], widths, width)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for index in shown:
        justify: JustifyMethod = "right" if columns[index].is_number else "left"
        grid.add_column(columns[index].title, justify=justify, no_wrap=index > 0, overflow="fold")
    # A line above each row that names another place; the first has the head's.
    begins = [isinstance(row, Mapping) and bool(row.get("place")) for row in rows]
    for number, row in enumerate(zip(*(cells[index] for index in shown), strict=True)):
        grid.add_row(*row, end_section=any(begins[number + 1 : number + 2]))
    return grid


def memory(
    used_bytes: int, budget_bytes: int, bar_width: int, own_bytes: int = 0
) -> RenderableType:
    """Return the used bytes of a budget in figures, with a bar unless `bar_width` is 0.

    `own_bytes` are those of the process itself, beside the models'.
    """
    if not budget_bytes:
        return "–"
    own = f" + {units.size(own_bytes)}" if own_bytes else ""
    figures = Text(f"{units.size(used_bytes)}{own} / {units.size(budget_bytes)}", no_wrap=True)
    used_bytes += own_bytes
    if not bar_width:
        return figures
    style = "red" if used_bytes > budget_bytes else "green"
    bar = ProgressBar(
        total=budget_bytes,
        # A bar is full at most; that it is over its budget is told by its colour.
        completed=min(used_bytes, budget_bytes),
        width=bar_width,
        complete_style=style,
        finished_style=style,
    )
    grid = Table.grid(padding=(0, 1))
    grid.add_row(bar, figures)
    return grid


def status(answer: mesh_status.MeshStatus, endpoint: str, width: int) -> RenderableType:
    """Return the output of `meshserve status`; `endpoint` is shown if the mesh names none."""
    named_rows = [
        *((worker["id"], worker) for worker in workers(answer)),
        *((f"gateway {gateway['node']}", gateway) for gateway in answer["gateways"]),
    ]
    return Group(
        Text.assemble(
            ("meshserve ", "bold"),
            f"{answer['version']} · ",
            state(answer["state"]),
            f" · {answer['endpoint'] or endpoint}",
        ),
        Text(""),
        table(worker_columns(answer, width), list(workers(answer)), width),
        Text(""),
        _gateways(answer, width),
        Text(""),
        _models_line(answer),
        # What a mesh of an earlier version does not send counts as empty.
        *pool_lines.lines(answer),
        *(_spread_line(model) for model in answer.get("spread", ())),
        *_quarantine_lines(answer),
        *_joining_lines(answer),
        *_hung_lines(answer),
        *_alias_lines(answer),
        *_hog_lines(answer),
        *_problem_lines(answer),
        *reasons(named_rows),
    )


def _gateways(answer: mesh_status.MeshStatus, width: int) -> RenderableType:
    if not node_rows.has_several(answer):
        return table(GATEWAY_COLUMNS, answer["gateways"], width)
    nodes = list(node_rows.gateways(answer))
    columns = [column for column in NODE_COLUMNS if column.title != "drain" or _is_draining(nodes)]
    return table(columns, nodes, width)


def _is_draining(nodes: Sequence[Row]) -> bool:
    return any(row["drain"] for row in nodes)


def _quarantine_lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield the models that are not run because they end processes."""
    for held in answer.get("quarantined", ()):
        yield Text.assemble(
            (f"model {held['model']}:{held['version']} ", "bold red"), held["reason"]
        )


def _joining_lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield the models whose requests are joined no more."""
    for stop in answer.get("joins_stopped", ()):
        yield Text.assemble(
            (f"model {stop['model']}:{stop['version']} ", "bold yellow"),
            f"on {stop['worker']}: requests are joined no more: {stop['reason']}",
        )


def _hung_lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield the models of which runs do not end."""
    for hung in answer.get("hung", ()):
        yield Text.assemble(
            (f"model {hung['model']}:{hung['version']} ", "bold yellow"),
            f"on {hung['worker']}: {hung['runs']} of its runs do not end",
        )


def _alias_lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield the aliases whose model or version went away."""
    for dangling in answer.get("aliases_dangling", ()):
        yield Text.assemble((f"alias {dangling['alias']} ", "bold red"), dangling["reason"])


def _hog_lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield the models that ran while their workers took far more memory than their budgets."""
    for hog in answer.get("hogs", ()):
        yield Text.assemble(
            (f"model {hog['model']}:{hog['version']} ", "bold yellow"),
            f"ran {hog['times']} times on {hog['worker']} while it took more memory than its "
            f"budget, {units.size(hog['peak_bytes'])}",
        )


def _problem_lines(answer: mesh_status.MeshStatus) -> Iterator[Text]:
    """Yield what of each repository is not served."""
    for repository in answer.get("repositories", ()):
        for problem in repository["problems"]:
            yield Text.assemble((f"repository {repository['place']} ", "bold yellow"), problem)


def reasons(named_rows: Sequence[tuple[str, Row]]) -> list[RenderableType]:
    """Return an empty line and then one line per row with a reason; [] if no row has one."""
    lines = [
        Text.assemble((f"{name} ", "bold red"), " ".join(str(row["reason"]).split()))
        for name, row in named_rows
        if row.get("reason")
    ]
    return [Text(""), *lines] if lines else []


def workers(answer: mesh_status.MeshStatus) -> Iterator[Row]:
    """Yield every worker with its pool's name and device, by node if there are several."""
    rows: list[Row] = [
        {**worker, "pool": pool["name"], "device": pool["device"]}
        for pool in answer["pools"]
        for worker in pool["workers"]
    ]
    yield from node_rows.by_node(answer, rows) if node_rows.has_several(answer) else rows


def worker_columns(answer: mesh_status.MeshStatus, width: int) -> list[Column]:
    """Return the columns of workers, with one for GPU memory if any worker has GPU memory."""
    has_gpu = any(worker["budget_bytes"]["gpu"] for worker in workers(answer))
    bar_width = BAR_WIDTHS[width >= WIDE, has_gpu]
    gpu = [
        Column(
            "gpu memory",
            lambda row: memory(row["booked_bytes"]["gpu"], row["budget_bytes"]["gpu"], bar_width),
        )
    ]
    has_nodes = node_rows.has_several(answer)
    places = [Column("node", lambda row: row["place"])] if has_nodes else []
    ids = [] if has_nodes else [Column("node", lambda row: row["node"][:LETTERS], dropped=2)]
    return [
        *places,
        Column("worker", lambda row: row["id"]),
        Column("state", lambda row: state(row["state"])),
        *ids,
        Column("device", lambda row: row["device"], dropped=2),
        Column("models", _resident, is_number=True),
        Column("memory", lambda row: _host_memory(row, bar_width)),
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


def _host_memory(row: Row, bar_width: int) -> RenderableType:
    """Return the models' and the process's own bytes, both of which the budget is for."""
    booked, budget = row["booked_bytes"]["host"], row["budget_bytes"]["host"]
    own = max(0, row["private_bytes"] - booked)
    return memory(booked, budget, bar_width, own)


def _resident(row: Row) -> str:
    loading = f" +{row['loading']}" if row["loading"] else ""
    return f"{row['resident']:,}{loading}"


GATEWAY_COLUMNS = (
    Column("gateway", lambda row: row["node"][:LETTERS]),
    Column("state", lambda row: state(row["state"])),
    Column("listen", lambda row: row["listen"]),
    Column("pid", lambda row: str(row.get("pid", "")), dropped=2, is_number=True),
    Column("envoy", lambda row: str(row.get("envoy_pid", "")), dropped=2, is_number=True),
    Column("restarts", lambda row: units.count(row["restarts"]), is_number=True),
    Column("frames", lambda row: row.get("native", ""), dropped=1),
)


NODE_COLUMNS = (
    Column("node", lambda row: row["name"]),
    Column("id", lambda row: row["id"], dropped=2),
    Column("state", lambda row: state(row["node_state"])),
    Column("drain", lambda row: row["drain"], dropped=1),
    Column("gateway", lambda row: state(row["state"]) if row["state"] else "–"),
    *GATEWAY_COLUMNS[2:],
)


def _models_line(answer: mesh_status.MeshStatus) -> Text:
    models, controller = answer["models"], answer["controller"]
    line = Text.assemble(
        ("models ", "bold"),
        f"{models['registered']:,} registered · {models['resident']:,} resident · "
        f"{models['loading']:,} loading · ",
    )
    line.append(f"{models['failed']:,} failed", "bold red" if models["failed"] else "")
    restarts = f" · {controller['restarts']} restarts" if controller["restarts"] else ""
    return line.append(f"    controller {controller['pid']}{restarts}", "dim")


def _spread_line(model: mesh_status.SpreadModel) -> Text:
    return Text.assemble(
        ("busy   ", "bold"), f"{model['model']} is on {', '.join(model['workers'])}"
    )


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


def footprint(by_device: mesh_status.ByteCounts | None) -> str:
    """Return the bytes by device, or a dash if none is known."""
    if not by_device or not any(by_device.values()):
        return "–"
    gpu = f" + {units.size(by_device['gpu'])} gpu" if by_device.get("gpu") else ""
    return f"{units.size(by_device['host'])}{gpu}"


def models(page: mesh_status.ModelPage, width: int) -> RenderableType:
    """Return the output of `meshserve models list`: the table, reasons, and how to see more."""
    rows = page["models"]
    parts: list[RenderableType] = [
        table(MODEL_COLUMNS, rows, width) if rows else Text("no models", "dim")
    ]
    parts += reasons([(row["name"], row) for row in rows])
    if page.get("next"):
        parts += [Text(""), Text(f"There are more: --after {page['next']}", "dim")]
    return Group(*parts)


def model(answer: mesh_status.ModelStatus) -> RenderableType:
    """Return the output of `meshserve models show`: one line per field that is not empty."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for title, cell in _model_lines(answer):
        if cell:
            grid.add_row(title, cell)
    return grid


def _model_lines(answer: mesh_status.ModelStatus) -> Iterator[tuple[str, RenderableType]]:
    yield "name", Text(answer["name"])
    yield "version", Text(answer["version"])
    yield "versions", Text(", ".join(answer["versions"]))
    yield "newest", Text(answer["newest"])
    yield "state", state(answer["state"])
    yield "reason", Text(answer.get("reason") or "", "red")
    yield "runtime", Text(answer["runtime"] or "")
    yield "uri", Text(answer["uri"])
    yield "pool", Text(answer["pool"])
    yield "worker", Text(answer["worker"] or "")
    yield from model_lines.tensors(answer)
    yield "footprint", Text(_footprint_line(answer))
    yield "requests", Text(units.count(answer["requests"]))
    yield "hung runs", Text(units.count(answer["hung_runs"]) if answer.get("hung_runs") else "")
    yield "joining", Text(model_lines.joining(answer.get("joining")))
    yield "pinned", Text(model_lines.pinned(answer))
    yield from model_lines.reasons(answer)
    yield "aliases", Text(", ".join(answer["aliases"]))
    yield "dangling aliases", Text(", ".join(answer.get("aliases_dangling", ())), "red")
    yield "declared by", Text(answer["origin"])
    replaced = ", ".join(answer.get("replaced", ()))
    yield (
        "overridden",
        Text(replaced and f"by a load request, until a load without; own: {replaced}"),
    )


def _footprint_line(answer: mesh_status.ModelStatus) -> str:
    how = answer.get("footprint_from") or ""
    size = footprint(answer["footprint_bytes"])
    return f"{size}, {how}" if how and size != "–" else size
