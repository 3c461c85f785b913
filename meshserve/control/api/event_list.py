"""`GET /mesh/v1/events`: what has happened in the mesh, with its reasons."""

from __future__ import annotations

import os
import time
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from meshserve import errors
from meshserve.control import controller
from meshserve.control.api import rest_routes
from meshserve.core.mesh import event_log
from meshserve.core.values import mesh_events
from meshserve.protocol import paths

DIGITS = 3
"""Times are told to the millisecond: the clocks of nodes are compared by reports, no better."""


class EventList:
    """Reads the controller's log of events.

    Times inside are of a clock that never goes back; callers speak and hear of Unix time.
    """

    def __init__(self, controller_: controller.Controller) -> None:
        self._controller = controller_

    def routes(self) -> list[Route]:
        """Return the route of the list."""
        return [rest_routes.route("GET", f"{paths.MESH_V1}events", self._list)]

    async def _list(self, request: Request) -> object:
        offset_s = time.time() - self._controller.now_s()
        choice = event_choice(request, offset_s)
        log = self._controller.view().events
        chosen = log.read(choice)
        shown = [_event(numbered, offset_s) for numbered in chosen]
        is_cut = choice.after is not None and len(chosen) == choice.limit
        return {
            # A reader that goes on must begin anew where this changes: numbers begin at 1 again.
            "log": f"{os.getpid()}-{self._controller.restarts}",
            "known_since_s": round(self._controller.begun_s + offset_s, DIGITS),
            "missed": log.missed,
            # Reports come a second later than what they tell of.
            "events": sorted(shown, key=lambda event: event["at_s"]),
            "next": chosen[-1].number if is_cut else log.last_number,
        }


def event_choice(request: Request, offset_s: float) -> event_log.EventChoice:
    """Return the choice in a listing's query; the offset is Unix time less the controller's.

    Raises InvalidRequest.
    """
    query = request.query_params
    kind = query.get("kind", "")
    if kind not in ("", *mesh_events.KINDS):
        raise errors.InvalidRequest(
            f"there is no kind {kind!r}; there are: {', '.join(mesh_events.KINDS)}"
        )
    after, since_s = _number(query.get("after", ""), "after"), _number(query.get("since_s", ""))
    return event_log.EventChoice(
        query.get("about", ""),
        kind,
        None if after is None else int(after),
        None if since_s is None else since_s - offset_s,
        rest_routes.limit(request),
    )


def _number(text: str, name: str = "since_s") -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        raise errors.InvalidRequest(f"{name} must be a number, not {text!r}") from None


def _event(numbered: event_log.NumberedEvent, offset_s: float) -> dict[str, Any]:
    event = numbered.event
    return {
        "number": numbered.number,
        "at_s": round(event.at_s + offset_s, DIGITS),
        "kind": event.kind,
        "reason": event.reason,
        "model": event.model,
        "version": event.version,
        "process": event.process,
        "node": event.node,
        "by": event.by,
        "took_s": round(event.took_s, DIGITS),
    }
