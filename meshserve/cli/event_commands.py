"""`meshserve events`: print what has happened in a mesh, with its reasons."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from collections.abc import Iterable
from typing import Annotated

import typer

from meshserve import errors
from meshserve.cli import connection, log_view, units
from meshserve.client import admin
from meshserve.protocol import mesh_status

POLL_S = 0.5
NODE_LETTERS = 12
JITTER_S = 0.05
"""By how much a new controller may place an event of before later than the one before it did."""


def events(
    about: Annotated[
        str,
        typer.Argument(
            metavar="[MODEL|WORKER|POOL|LLM|NODE]", help="Of what to tell. Default: of all."
        ),
    ] = "",
    follows: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events until Ctrl-C.")
    ] = False,
    since: Annotated[
        str, typer.Option(metavar="30s|10m|2h|1d|TIME", help="Only events since then.")
    ] = "",
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="The last so many, without --since.")
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print an object a line.")] = False,
    endpoint: connection.Endpoint = None,
) -> None:
    """Print loads, evictions, deaths, changes and scaling, with their reasons."""
    since_s = log_view.parse_since(since, time.time()) if since else None
    with connection.connect(endpoint) as client:
        reader = EventReader(client, about, as_json=as_json)
        reader.print_known(since_s, 10_000 if since else lines)
        try:
            while follows:
                time.sleep(POLL_S)
                reader.print_new()
        except KeyboardInterrupt:
            return


class EventReader:
    """Prints the events that a mesh has logged, and then those that are new."""

    def __init__(self, client: admin.AdminClient, about: str, *, as_json: bool) -> None:
        self._client = client
        self._about = about or None
        self._as_json = as_json
        self._log, self._next, self._last_s = "", 0, 0.0

    def print_known(self, since_s: float | None, limit: int) -> None:
        """Print the last events, or those since a Unix time, and since when they are known."""
        page = self._client.events(about=self._about, since_s=since_s, limit=limit)
        self._take(page)
        if not page["events"] or (since_s is not None and since_s < page["known_since_s"]):
            known = _moment(page["known_since_s"])
            sys.stderr.write(
                f"the controller knows what happened since {known}, and of earlier loads and "
                "evictions what the workers remember\n"
            )
        if page["missed"]:
            sys.stderr.write(f"{page['missed']} events were too many to be kept\n")

    def print_new(self) -> None:
        """Print what has been logged since the last call; a mesh that is away is waited for."""
        try:
            page = self._client.events(about=self._about, after=self._next, limit=1000)
            if page["log"] != self._log:
                # Another controller, which numbers anew what the workers tell it again.
                again_s = self._last_s + JITTER_S
                page = self._client.events(about=self._about, since_s=again_s, limit=1000)
        except (errors.Unavailable, errors.DeadlineExceeded):
            return
        self._take(page)

    def _take(self, page: mesh_status.EventPage) -> None:
        self._log, self._next = page["log"], page["next"]
        self._print(page["events"])

    def _print(self, page_events: Iterable[mesh_status.EventStatus]) -> None:
        for event in page_events:
            self._last_s = max(self._last_s, event["at_s"])
            sys.stdout.write(f"{json.dumps(event) if self._as_json else line(event)}\n")
        sys.stdout.flush()


def line(event: mesh_status.EventStatus) -> str:
    """Return an event as one line: its time, kind, subject, process and reason."""
    subject = f"{event['model']}:{event['version']}" if event["version"] else event["model"]
    where = " on " if subject and event["process"] else ""
    process = event["process"]
    if event["process"] == "gateway" or (event["process"] and not subject):
        process += f" ({event['node'][:NODE_LETTERS]})" if event["node"] else ""
    took = f" in {units.duration(event['took_s'])}" if event["took_s"] else ""
    is_named = event["reason"].startswith(f"model {subject} ")
    who = "" if is_named else " ".join(f"{subject}{where}{process}{took}".split())
    by = f" (by {event['by']})" if event["by"] else ""
    reason = " ".join(event["reason"].split())
    return (
        f"{_moment(event['at_s'])} {event['kind']:<11} {': '.join(filter(None, (who, reason)))}{by}"
    )


def _moment(at_s: float) -> str:
    moment = dt.datetime.fromtimestamp(at_s)  # noqa: DTZ006 - as logs do, in this machine's zone
    return moment.isoformat(" ", "milliseconds")
