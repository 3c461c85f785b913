"""The requests that wait for one LLM: first come, first served, and bounded in number, bytes and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshserve.core.values import llm_spec


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """One that waits, since when, and how many bytes of it lie at a gateway meanwhile."""

    ticket: str
    size_bytes: int
    since_s: float


class HoldQueue:
    """All that wait, the longest waiting first."""

    def __init__(self) -> None:
        self._requests: dict[str, HeldRequest] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._requests)

    def __contains__(self, ticket: str) -> bool:
        return ticket in self._requests

    def __iter__(self) -> Iterator[HeldRequest]:
        return iter(tuple(self._requests.values()))

    @property
    def since_s(self) -> float | None:
        """Since when the first one waits, if any does."""
        return next((request.since_s for request in self._requests.values()), None)

    def refusal(self, limits: llm_spec.HoldLimits, size_bytes: int) -> str:
        """Why one more of that size may not wait; empty if it may."""
        if len(self) >= limits.requests_max:
            return f"{len(self)} requests wait for it already"
        if self.size_bytes + size_bytes > limits.bytes_max:
            return f"requests of {self.size_bytes} bytes wait for it already, and {limits.bytes_max} may"
        return ""

    def add(self, request: HeldRequest) -> None:
        """It waits, behind all others."""
        assert request.ticket not in self._requests, f"ticket {request.ticket!r} waits already"
        self._requests[request.ticket] = request
        self.size_bytes += request.size_bytes

    def leave(self, ticket: str) -> bool:
        """It waits no longer; whether it did."""
        request = self._requests.pop(ticket, None)
        self.size_bytes -= request.size_bytes if request else 0
        return request is not None

    def take_all(self) -> list[str]:
        """Everybody, in order: nobody waits any longer."""
        tickets = list(self._requests)
        self._requests.clear()
        self.size_bytes = 0
        return tickets

    def take_overdue(self, limits: llm_spec.HoldLimits, now_s: float) -> list[str]:
        """Those that have waited as long as anybody may."""
        overdue = [
            request.ticket for request in self if now_s - request.since_s >= limits.wait_s_max
        ]
        for ticket in overdue:
            self.leave(ticket)
        return overdue

    def take_surplus(self, limits: llm_spec.HoldLimits) -> list[str]:
        """The last that came, while more wait than may: the limits have become narrower."""
        surplus: list[str] = []
        while len(self) > limits.requests_max or self.size_bytes > limits.bytes_max:
            surplus.append(next(reversed(self._requests)))
            self.leave(surplus[-1])
        return surplus

    def check(self, limits: llm_spec.HoldLimits) -> None:
        """State what always holds: nothing is over its bound, and bytes are counted right."""
        assert len(self) <= limits.requests_max
        assert self.size_bytes == sum(request.size_bytes for request in self) <= limits.bytes_max
        arrivals = [request.since_s for request in self]
        assert arrivals == sorted(arrivals)
