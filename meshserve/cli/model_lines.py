"""The lines of `meshserve models show` that give reasons."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from meshserve.cli import units
from meshserve.protocol import mesh_status

CLOCKS_S = 1.0
"""By how much the clock of the mesh's machine may differ from this one's."""

Answer = Mapping[str, Any]
Line = tuple[str, Text]


def tensors(answer: Answer) -> Iterator[Line]:
    """Yield the inputs and outputs, if the model has been loaded."""
    for title in ("inputs", "outputs"):
        names = [_tensor(tensor) for tensor in answer.get(title) or ()]
        yield title, Text("\n".join(names))


def _tensor(tensor: Answer) -> str:
    sizes = ", ".join("any" if size < 0 else str(size) for size in tensor["shape"])
    return f"{tensor['name']} {tensor['datatype'] or 'any type'} [{sizes}]"


def reasons(answer: Answer) -> Iterator[Line]:
    """Yield when and why the model came, left and failed, and what requests wait for now."""
    load, departure = answer.get("last_load"), answer.get("last_departure")
    if load:
        took = units.duration(load["took_s"])
        yield "last load", Text(f"{_moment(load['at_s'])}, took {took}")
    if departure:
        when = _moment(departure["at_s"])
        yield f"last {_noun(departure['kind'])}", Text(f"{when}, {departure['reason']}")
    failure, error = answer.get("load_failure"), answer.get("last_error")
    if failure:
        yield "load failed", Text(_failure(failure), "red")
    if error:
        yield "last error", Text(f"{_moment(error['at_s'])}, {error['error']}", "red")
    failed = answer.get("failed_requests") or {}
    counts = (f"{units.count(number)} {kind}" for kind, number in sorted(failed.items()))
    yield "failed requests", Text(", ".join(counts))
    yield "slow", Text("\n".join(answer.get("slow") or ()))


def unchanged(answer: Answer, begun_s: float) -> str:
    """Return that a model was in memory before `begun_s`, Unix time, empty if it was loaded since.

    The mesh has looked at its files: had they changed, they would have been loaded.
    """
    last_load = answer.get("last_load")
    if answer["state"] != "ready" or not last_load or last_load["at_s"] > begun_s - CLOCKS_S:
        return ""
    return f"nothing to do: its files are unchanged since its load at {_moment(last_load['at_s'])}"


def _noun(kind: str) -> str:
    return {"evicted": "eviction", "unloaded": "unload", "parked": "offload"}.get(kind, "refusal")


def _failure(failure: Answer) -> str:
    times = units.number(failure["in_a_row"], "time")
    wait_s = failure["next_try_in_s"]
    when = f"again in {units.duration(wait_s)}" if wait_s else "again with the next request"
    return f"{times} in a row, tried {when}: {' '.join(failure['error'].split())}"


def _moment(at_s: float) -> str:
    moment = dt.datetime.fromtimestamp(at_s)  # noqa: DTZ006 - in this machine's zone, as logs are
    return moment.isoformat(" ", "seconds")


def pinned(answer: Answer) -> str:
    """Return whether the model is pinned, and by what."""
    by = answer.get("pinned_by")
    return (f"yes, by {by}" if by else "yes") if answer["pinned"] else "no"


JOINING_WORDS = {
    "joined": "requests that wait together share runs",
    "unproven": "not yet: no requests waited together",
    "never": "no",
    "stopped": "no more",
}


def joining(state: mesh_status.JoiningStatus | None) -> str:
    """Return whether requests share runs, and why not; "" while that is not known."""
    if state is None or not state["state"]:
        return ""
    words = JOINING_WORDS.get(state["state"], state["state"])
    return f"{words}: {state['reason']}" if state["reason"] else words
