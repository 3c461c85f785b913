"""The requests that wait for a fetch or a copy; each is answered once, unless its client leaves."""

from __future__ import annotations

from collections.abc import Iterable

from meshserve import errors
from meshserve.core.memory import copies
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model

Record = copies.Copy | copies.Binding
"""Where a request waits: at its model's copy, or before the artifact's fetch at the binding."""


class Waiters:
    """All waiting requests by ticket. Refusals are appended to `out`."""

    def __init__(self, out: list[ev.Command]) -> None:
        self._records: dict[ev.Ticket, Record] = {}
        self._out = out

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, ticket: ev.Ticket) -> bool:
        return ticket in self._records

    def add(self, ticket: ev.Ticket, id_: model.ModelId, record: Record) -> None:
        """Let the request for the model wait for the record."""
        assert ticket not in self._records, f"ticket {ticket!r} waits already"
        # A record without waiters shares the empty dictionary NO_WAITERS: it gets one of its own.
        if record.waiters:
            record.waiters[ticket] = id_
        else:
            record.waiters = {ticket: id_}
        self._records[ticket] = record

    def remove(self, ticket: ev.Ticket) -> Record | None:
        """Let the request wait no longer; return what it waited for, if it did."""
        # The answer may have crossed the news that the client has left.
        record = self._records.pop(ticket, None)
        if record is not None:
            del record.waiters[ticket]
            record.waiters = record.waiters or copies.NO_WAITERS
        return record

    def take(self, record: Record, id_: model.ModelId | None = None) -> list[ev.Ticket]:
        """Remove and return the record's tickets in order of arrival, or only those for `id_`."""
        tickets = [
            ticket for ticket, other in record.waiters.items() if id_ is None or other == id_
        ]
        for ticket in tickets:
            self.remove(ticket)
        return tickets

    def refuse(self, tickets: Iterable[ev.Ticket], error: errors.MeshError) -> None:
        """Answer requests that `take` or `remove` have returned with an error."""
        self._out.extend(ev.RefuseLease(ticket, error) for ticket in tickets)
