"""Requests for pools without a worker: they wait at the gateways while the first one starts."""

from __future__ import annotations

from meshserve import errors
from meshserve.core.catalog import catalog_index
from meshserve.core.llm import llm_state, public_reason
from meshserve.core.mesh import mesh_view, pool_sizes
from meshserve.core.processes import gateways, pool_scaling, workers
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import commands, desired, llm_events

RETRY_AFTER_S = 1.0

DOUBTFUL = 2
"""Failed starts in a row after which requests do not wait for the next one."""


class PoolHolds:
    """The held requests by pool. Each is answered once, by Admit or TurnAway, in order."""

    def __init__(
        self,
        index: catalog_index.CatalogIndex,
        workers_: workers.Workers,
        gateways_: gateways.Gateways,
        sizes: pool_sizes.PoolSizes,
        out: commands.Outbox,
    ) -> None:
        self.queues: dict[str, llm_state.HoldQueue] = {}
        self._index = index
        self._workers = workers_
        self._gateways = gateways_
        self._sizes = sizes
        self._out = out
        self._held: dict[str, float] = {}

    def take(self, event: llm_events.LlmEvent, now_s: float) -> bool:
        """Apply the event if it is about a held request; return whether it is about no LLM's."""
        if isinstance(event, llm_events.HeldRequestLeft):
            # It names no pool, and its ticket waits at one of them at most, or for an LLM.
            for queue in self.queues.values():
                queue.remove(event.ticket)
        if isinstance(event, llm_events.RequestHeld) and event.is_small:
            self._receive(event, now_s)
            return True
        return False

    def _receive(self, event: llm_events.RequestHeld, now_s: float) -> None:
        try:
            self._index.models.resolve(event.name)
        except errors.ModelNotFound as error:
            # No worker is started to answer this.
            self._refuse(event.ticket, error.message, is_unknown=True)
            return
        pool = self._index.desired.pool(self._index.pool_of(event.name) or desired.DEFAULT_POOL)
        if pool is None or pool.scaling is None or self._can_serve(pool.name):
            self._out.append(commands.Admit(event.ticket))
            return
        queue = self.queues.setdefault(pool.name, llm_state.HoldQueue())
        self._sizes.ask(pool, now_s)
        failure = self._failure(pool.name)
        refusal = failure or queue.refusal(pool.scaling.held, event.size_bytes)
        if refusal:
            self._turn_away(pool.name, [event.ticket], refusal, now_s)
        else:
            queue.add(llm_state.HeldRequest(event.ticket, event.size_bytes, now_s))

    def follow(self, now_s: float, *, is_draining: bool) -> None:
        """Answer the requests that can be answered, and tell gateways where to hold more."""
        held = self.held()
        # A mesh that drains stops its gateways first.
        if held != self._held and not is_draining:
            self._held = held
            self._gateways.configure()
            self._gateways.needed = self._gateways.revision
        for name, queue in self.queues.items():
            if queue:
                self._answer(name, queue, now_s, is_draining=is_draining)

    def _answer(
        self, name: str, queue: llm_state.HoldQueue, now_s: float, *, is_draining: bool
    ) -> None:
        pool = self._index.desired.pool(name)
        failure = self._failure(name)
        if is_draining or pool is None:
            self._turn_away(name, queue.take_all(), "it is not served any more", now_s)
        elif self._can_serve(name):
            self._out.extend(commands.Admit(ticket) for ticket in queue.take_all())
        elif failure:
            self._turn_away(name, queue.take_all(), failure, now_s)
        else:
            self._sizes.ask(pool, now_s)
            limits = (pool.scaling or desired.ScalingSettings()).held
            overdue = queue.take_overdue(limits, now_s)
            self._turn_away(name, overdue, "its worker took too long to start", now_s)
            surplus = queue.take_surplus(limits)
            self._turn_away(name, surplus, "fewer may wait for it from now on", now_s)

    def held(self) -> dict[str, float]:
        """Return the pools whose requests gateways must hold, each with the longest wait in s."""
        return {
            pool.name: pool.scaling.held.wait_s_max
            for pool in self._index.desired.pools
            if pool.scaling and pool.can_sleep and not self._workers.has_ready(pool.name)
        }

    def views(self) -> dict[str, mesh_view.PoolView]:
        """Return what readers see of each pool's size and of its held requests."""
        views = {}
        for pool in self._sizes.wanted(self._index.desired.pools):
            size = self._sizes.sizes.get(pool.name, pool_scaling.PoolSize(pool.workers))
            held = len(self.queues.get(pool.name, ()))
            views[pool.name] = mesh_view.PoolView(pool.workers, size.changes, size.words, held)
        return views

    def _can_serve(self, pool: str) -> bool:
        """Return whether a request that is let through now finds a worker, at any gateway."""
        return self._workers.has_ready(pool) and self._gateways.have_taken(self._gateways.needed)

    def _failure(self, pool: str) -> str:
        """Return why the pool's workers do not start, "" while one may still come up."""
        records = self._workers.of_pool(pool)
        have_failed = all(
            record.state is ProcessState.LOST and record.backoff.failures >= DOUBTFUL
            for record in records
        )
        if not records or not have_failed:
            return ""
        times, reason = records[0].backoff.failures, records[0].reason
        # It has an address since it started for the first time.
        if records[0].endpoint is None:
            return f"its worker does not start: {reason}"
        return f"its worker was lost {times} times in a row, and starts again: {reason}"

    def _turn_away(self, pool: str, tickets: list[str], reason: str, now_s: float) -> None:
        retries_s = (record.backoff.retry_at_s - now_s for record in self._workers.of_pool(pool))
        retry_after_s = max(RETRY_AFTER_S, min(retries_s, default=RETRY_AFTER_S))
        for ticket in tickets:
            sentence = f"pool {pool!r} is not ready: {public_reason.for_callers(reason)}"
            self._out.append(commands.TurnAway(ticket, sentence, retry_after_s))

    def _refuse(self, ticket: str, reason: str, *, is_unknown: bool) -> None:
        self._out.append(commands.TurnAway(ticket, reason, RETRY_AFTER_S, is_unknown=is_unknown))

    def check(self) -> None:
        """Assert that the queues keep their limits, and that no request waits for nothing."""
        for name, queue in self.queues.items():
            pool = self._index.desired.pool(name)
            assert pool is not None or not queue
            if pool is not None:
                queue.check((pool.scaling or desired.ScalingSettings()).held)
