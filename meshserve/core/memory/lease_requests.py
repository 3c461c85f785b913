"""The requests for leases: each is granted, refused, or waits for a fetch or a load."""

from __future__ import annotations

import itertools

from meshserve import errors
from meshserve.core.memory import admission, copies, memory_pool, waiters
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import WAITABLE, CopyPhase
from meshserve.core.values import model

LEFT = frozenset({CopyPhase.FAILED, CopyPhase.ABSENT, CopyPhase.DRAINING, CopyPhase.EVICTING})
"""Phases of a copy that a request would have to load again."""


class LeaseRequests:
    """The copy that each model is bound to, and the requests that wait for models."""

    def __init__(
        self,
        pool: memory_pool.MemoryPool,
        waiting: waiters.Waiters,
        queue: admission.Admission,
        limits: copies.WorkerLimits,
    ) -> None:
        self.bindings: dict[model.ModelId, copies.Binding] = {}
        self.waiters = waiting
        self._pool = pool
        self._admission = queue
        self._limits = limits
        # One count for all models: a model that is bound anew ignores the answer to its old fetch.
        self._attempts = itertools.count(1)

    def copy_of(self, id_: model.ModelId) -> copies.Copy | None:
        """Return the copy that serves the model, in memory or not; None before its fetch."""
        binding = self.bindings.get(id_)
        if binding is None or binding.key is None:
            return None
        return self._pool.copies[binding.key]

    def request(self, ticket: ev.Ticket, id_: model.ModelId) -> None:
        """Refuse the request, or let it wait for a model that is not ready."""
        # The number is bounded because each waiting request holds its body in memory.
        if len(self.waiters) >= self._limits.waiters_max:
            message = f"{len(self.waiters)} requests wait for models to load"
            self.refuse(ticket, errors.Overloaded(message, retry_after_s=1.0))
            return
        copy = self.copy_of(id_)
        if copy is None:
            self._request_fetch(self.bindings.setdefault(id_, copies.Binding(id_)), ticket)
        else:
            self.request_copy(copy, ticket, id_)
            self._admission.admit()

    def _request_fetch(self, binding: copies.Binding, ticket: ev.Ticket) -> None:
        failure, now_s = binding.failure, self._pool.now_s
        if failure and not binding.is_fetching and not failure.retry.is_due(now_s):
            self.refuse(ticket, failure.refusal(now_s))
            return
        self.waiters.add(ticket, binding.id, binding)
        if not binding.is_fetching:
            self.fetch(binding)

    def request_copy(self, copy: copies.Copy, ticket: ev.Ticket, id_: model.ModelId) -> None:
        """Grant or refuse the request, or let it wait for the copy, which is queued if need be."""
        refusal = self._refusal(copy)
        if refusal is not None:
            self.refuse(ticket, refusal)
        elif copy.state is CopyPhase.READY:
            self.grant(copy, ticket)
        else:
            self.waiters.add(ticket, id_, copy)
            if copy.state not in WAITABLE:
                self._admission.enqueue(copy)

    def _refusal(self, copy: copies.Copy) -> errors.MeshError | None:
        """Return the error if no request may wait for the copy now, else None."""
        failure, state, now_s = copy.failure, copy.state, self._pool.now_s
        if failure:
            # A copy whose process died is freed first: until it is due, nothing may wait for it.
            is_backing_off = state in LEFT and not failure.retry.is_due(now_s)
            if is_backing_off or state is CopyPhase.STUCK:
                return failure.refusal(now_s)
        # In other phases the copy's bytes are booked, or its load decides whether it fits.
        if state in {CopyPhase.ABSENT, CopyPhase.FAILED, CopyPhase.OFFLOADED}:
            too_big = self._pool.too_big_error(copy, self._pool.account.overhead_min_bytes)
            if too_big is not None:
                self._pool.note_too_big(copy, too_big.message)
            return too_big
        return None

    def fetch(self, binding: copies.Binding) -> None:
        """Order a fetch of the model's artifact; the answers of earlier attempts are ignored."""
        binding.attempt = next(self._attempts)
        binding.is_fetching = True
        self._pool.changed.add(binding.id)
        self._pool.order(ev.FetchArtifact(binding.id, binding.attempt))

    def end_fetch(self, event: ev.ArtifactFetched | ev.FetchFailed) -> copies.Binding | None:
        """Return the binding that waits for this attempt; None for an attempt that is outdated."""
        binding = self.bindings.get(event.id)
        if binding is None or not binding.is_fetching or binding.attempt != event.attempt:
            return None
        binding.is_fetching = False
        self._pool.changed.add(binding.id)
        return binding

    def fetch_again(self, id_: model.ModelId, tickets: list[ev.Ticket]) -> None:
        """Bind the model's name anew, and let the tickets wait for the fetch of its artifact."""
        # A new record, which a late answer about the old artifact does not fit.
        binding = self.bindings[id_] = copies.Binding(id_)
        for ticket in tickets:
            self.waiters.add(ticket, id_, binding)
        self.fetch(binding)

    def grant(self, copy: copies.Copy, ticket: ev.Ticket) -> None:
        """Give the request a lease on a ready copy."""
        self._pool.acquire(copy, self._pool.now_s)
        self._pool.order(ev.GrantLease(ticket, copy.key))

    def refuse(self, ticket: ev.Ticket, error: errors.MeshError) -> None:
        """Answer the request with an error."""
        self._pool.order(ev.RefuseLease(ticket, error))

    def refuse_all(self, record: waiters.Record, error: errors.MeshError) -> None:
        """Answer all requests that wait for the record with an error."""
        self.waiters.refuse(self.waiters.take(record), error)

    def reconsider(self, copy: copies.Copy) -> None:
        """Update a copy that lost a waiter or a model: without waiters it leaves the queue."""
        if copy.state is CopyPhase.QUEUED and not copy.waiters:
            self._admission.cancel(copy)
        else:
            self._pool.update(copy)
