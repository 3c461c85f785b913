"""Who waits for what, and what they are told: each ticket is answered once, or leaves."""

from __future__ import annotations

from collections.abc import Iterable

from meshserve import errors
from meshserve.core.memory import copies
from meshserve.core.memory import residency_events as ev
from meshserve.core.values import model

Record = copies.Copy | copies.Binding


class Waiters:
    """All requests that wait. Refusals go to `out`."""

    def __init__(self, out: list[ev.Command]) -> None:
        self._records: dict[ev.Ticket, Record] = {}
        self._out = out

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, ticket: ev.Ticket) -> bool:
        return ticket in self._records

    def wait(self, ticket: ev.Ticket, id_: model.ModelId, record: Record) -> None:
        """The request waits for the record's next step."""
        assert ticket not in self._records, f"ticket {ticket!r} waits already"
        if record.waiters:
            record.waiters[ticket] = id_
        else:
            record.waiters = {ticket: id_}
        self._records[ticket] = record

    def leave(self, ticket: ev.Ticket) -> Record | None:
        """The request waits no longer; for what it waited, if it did."""
        record = self._records.pop(ticket, None)
        if record is not None:
            del record.waiters[ticket]
            record.waiters = record.waiters or copies.NO_WAITERS
        return record

    def take(self, record: Record, id_: model.ModelId | None = None) -> list[ev.Ticket]:
        """All that waited for the record, in their order, or those of one model: they wait for it no longer."""
        tickets = [
            ticket for ticket, asked in record.waiters.items() if id_ is None or asked == id_
        ]
        for ticket in tickets:
            self.leave(ticket)
        return tickets

    def refuse(self, tickets: Iterable[ev.Ticket], error: errors.MeshError) -> None:
        """The answer for requests that wait for nothing any more."""
        self._out.extend(ev.RefuseLease(ticket, error) for ticket in tickets)
