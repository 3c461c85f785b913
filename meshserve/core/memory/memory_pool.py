"""What is in memory and who leaves it: bytes, ranks, and the orders to leave."""

from __future__ import annotations

import contextlib
import enum
import heapq
from collections.abc import Generator

from meshserve import errors
from meshserve.core.memory import copies, eviction, eviction_queue
from meshserve.core.memory import residency_events as ev
from meshserve.core.memory.copy_lifecycle import CopyMove, CopyPhase
from meshserve.core.values import model


class Promise(enum.Enum):
    """What comes of asking for room. Postponed: it comes, but by steps that nobody else may disturb."""

    NONE = "none"
    COMING = "coming"
    POSTPONED = "postponed"


class MemoryPool:
    """The memory of one worker. Orders go to `out`; `there` is every copy by its key; `changed` collects the models whose copies did."""

    def __init__(
        self,
        limits: copies.WorkerLimits,
        policy: eviction.Policy,
        there: dict[str, copies.Copy],
        out: list[ev.Command],
    ) -> None:
        self.account = copies.MemoryAccount(limits.budget)
        self.counts = copies.ResidencyCounts()
        self.now_s = 0.0
        self.changed: set[model.ModelId] = set()
        self._policy = policy
        self._copies = there
        self._out = out
        self._age = 0.0
        self._ready = eviction_queue.EvictionQueue(self._score)
        self._offloaded = eviction_queue.EvictionQueue(self._score)

    def move(self, copy: copies.Copy, move: CopyMove) -> None:
        """Take the step that the table allows, now."""
        copy.move(move, self.now_s)
        self.account.update_pinned(copy)
        self.changed.update(copy.names)

    def order(self, command: ev.Command) -> None:
        """Say what is to be done next."""
        self._out.append(command)

    # Use

    def acquire(self, copy: copies.Copy, now_s: float) -> None:
        """One lease more."""
        if copy.is_evictable:
            self.account.mark_held(copy)
        _count_use(copy, now_s)
        copy.leases += 1

    def use(self, copy: copies.Copy, now_s: float) -> None:
        """One lease that is over already."""
        self.now_s = now_s
        _count_use(copy, now_s)
        if not copy.leases:
            self.changed.update(copy.names)
            self.rate(copy)

    def release(self, copy: copies.Copy) -> bool:
        """One lease less; whether it was the last."""
        assert copy.leases > 0, f"a lease on {copy.key} ended that nobody had"
        copy.leases -= 1
        if copy.leases:
            return False
        copy.last_used_s = self.now_s
        self.changed.update(copy.names)
        self.rate(copy)
        if copy.state is CopyPhase.DRAINING:
            self.free(copy)
        elif not copy.pins:
            self.account.mark_evictable(copy)
        return True

    def rate(self, copy: copies.Copy) -> None:
        """Score the copy as one that is used now."""
        copy.score = max(copy.score, self._policy(copy, self.now_s, self._age))

    def freshen(self, copy: copies.Copy) -> None:
        """It has just come into memory."""
        copy.uses = eviction.decayed(copy.uses, self.now_s - copy.last_used_s)
        copy.last_used_s = self.now_s
        self.rate(copy)

    def _score(self, key: str) -> float:
        copy = self._copies[key]
        if copy.leases:
            self.rate(copy)
        return copy.score

    def ranks(self, copy: copies.Copy) -> bool:
        """Whether it has a rank among those that may leave once nobody uses them."""
        return copy.key in self._ready or copy.key in self._offloaded

    # Staying and going

    def update(self, copy: copies.Copy) -> None:
        """The copy has changed: it leaves if that is wanted, is ranked if it may leave, and is forgotten if nothing is left of it."""
        state = copy.state
        if state is CopyPhase.READY or state is CopyPhase.OFFLOADED:
            if copy.is_unload_requested or not copy.names:
                self._drain(copy)
            elif not copy.pins:
                (self._ready if state is CopyPhase.READY else self._offloaded).add(copy.key)
                if not copy.leases:
                    self.account.mark_evictable(copy)
        elif not copy.names and (state is CopyPhase.ABSENT or state is CopyPhase.FAILED):
            del self._copies[copy.key]

    def hold(self, copy: copies.Copy) -> None:
        """It may not leave until it is settled again."""
        self.account.mark_held(copy)
        self._ready.discard(copy.key)
        self._offloaded.discard(copy.key)

    def pin(self, copy: copies.Copy, id_: model.ModelId) -> None:
        """The copy stays as long as the model has it pinned."""
        copy.pins |= {id_}
        self.changed.add(id_)
        copy.is_unload_requested = False
        self.hold(copy)
        self.account.update_pinned(copy)

    def unpin(self, copy: copies.Copy, id_: model.ModelId) -> None:
        """The model needs the copy to stay no longer."""
        copy.pins -= {id_}
        self.changed.add(id_)
        self.account.update_pinned(copy)

    def _drain(self, copy: copies.Copy) -> None:
        """Out as soon as nobody uses it, and nobody new gets it until then."""
        if not copy.leases:
            self.free(copy)
            return
        self.hold(copy)
        self.move(copy, CopyMove.DRAIN_ORDERED)
        self.account.draining = self.account.draining.plus(copy.booked)

    def free(self, copy: copies.Copy) -> None:
        """Order the copy out. Nobody may use it."""
        assert not copy.leases, f"{copy.key} is in use"
        self.hold(copy)
        if copy.state is CopyPhase.DRAINING:
            self.account.draining = self.account.draining.minus(copy.booked)
        self.move(copy, CopyMove.EVICTION_ORDERED)
        self._order_out(copy)

    def abandon(self, copy: copies.Copy) -> None:
        """Its move between the devices has failed: what there is of it goes."""
        self.move(copy, CopyMove.MOVE_FAILED)
        self._order_out(copy)

    def _order_out(self, copy: copies.Copy) -> None:
        copy.is_unload_requested = False
        self.account.book(copy, copy.booked, freeing=copy.booked)
        self.order(ev.FreeCopy(copy.key))

    def freed(self, copy: copies.Copy) -> None:
        """It has left."""
        self.move(copy, CopyMove.FREED)
        copy.score = 0.0
        self.account.book(copy, copies.NOTHING)

    def _park(self, copy: copies.Copy) -> None:
        self.hold(copy)
        self.move(copy, CopyMove.OFFLOAD_ORDERED)
        takes = model.Footprint(copy.offloaded_need.host_bytes, copy.booked.gpu_bytes)
        self.account.book(copy, takes, freeing=model.Footprint(0, copy.booked.gpu_bytes))
        self.order(ev.OffloadCopy(copy.key))

    def parked(self, copy: copies.Copy) -> None:
        """It has left the GPU."""
        self.move(copy, CopyMove.OFFLOADED)
        self.account.book(copy, copy.offloaded_need)

    # Making room

    def make_room(self, need: model.Footprint, left: model.Footprint) -> Promise:
        """Order out as many idle copies as `need` takes beyond what is `left` soon; nobody if not even all of them would do."""
        shelf_bytes = left.host_bytes - need.host_bytes
        with contextlib.closing(self._offers(self._offloaded)) as older:
            may_make_way = older if shelf_bytes >= 0 else ()
            return self._order_out_of(
                need,
                left,
                eviction.HostBuffer(
                    min(shelf_bytes, self.account.free.host_bytes), shelf_bytes, may_make_way
                ),
            )

    def keep_within(self) -> bool:
        """More may be booked than there is: order idle copies out; False if they don't suffice and copies alone are over the budget."""
        if copies.NOTHING.fits_in(self.account.free_soon.plus(self.account.evictable)):
            self.shed()
        return self.account.booked.minus(self.account.freeing).fits_in(self.account.budget)

    def shed(self) -> None:
        """Order idle copies out until no more is booked than there is, as far as they reach."""
        left = self.account.free_soon
        if copies.NOTHING.fits_in(left):
            return
        reach = left.plus(self.account.evictable)
        need = model.Footprint(min(0, reach.host_bytes), min(0, reach.gpu_bytes))
        now_bytes = min(left.host_bytes - need.host_bytes, self.account.free.host_bytes)
        self._order_out_of(need, left, eviction.HostBuffer(now_bytes, now_bytes))

    def _order_out_of(
        self, need: model.Footprint, left: model.Footprint, shelf: eviction.HostBuffer
    ) -> Promise:
        if not need.fits_in(left.plus(self.account.evictable)):
            return Promise.NONE
        may_leave = (
            (self._ready, self._offloaded) if need.host_bytes > left.host_bytes else (self._ready,)
        )
        with contextlib.closing(self._offers(*may_leave)) as candidates:
            planned = eviction.plan(candidates, left, need, shelf)
        assert planned is not None, "all that may leave would do, and yet they don't"
        for key in planned.free:
            self.evict(self._copies[key])
        for key in planned.park:
            self._leave_for_room(self._copies[key])
            self._park(self._copies[key])
        return Promise.POSTPONED if planned.is_postponed else Promise.COMING

    def drain_in_use(self, need: model.Footprint, left: model.Footprint) -> bool:
        """The same with copies in use, which nobody new gets from now on and which leave with their last lease; whether that will do."""
        with contextlib.closing(
            self._offers(self._ready, self._offloaded, with_leased=True)
        ) as candidates:
            planned = eviction.plan(candidates, left, need)
        if planned is None:
            return False
        for key in planned.free:
            self.evict(self._copies[key])
        return True

    def _offers(
        self, *rankings: eviction_queue.EvictionQueue, with_leased: bool = False
    ) -> Generator[eviction.Candidate, None, None]:
        with contextlib.ExitStack() as stack:
            ranked = [
                stack.enter_context(contextlib.closing(each.in_order()))
                for each in rankings
                if len(each)
            ]
            for score, key in heapq.merge(*ranked):
                copy = self._copies[key]
                if with_leased or not copy.leases:
                    yield eviction.Candidate(
                        key, copy.booked, copy.can_offload and copy.state is CopyPhase.READY, score
                    )

    def evict(self, copy: copies.Copy) -> None:
        """Out, because others need the room or nobody has used it for long."""
        self._leave_for_room(copy)
        self.counts.evictions += 1
        self._drain(copy)

    def _leave_for_room(self, copy: copies.Copy) -> None:
        self._age = max(self._age, copy.score)

    def too_big(self, copy: copies.Copy, overhead_bytes: int) -> errors.ModelTooBig | None:
        """Why there can never be room for the copy while the process itself takes so many bytes, if that is so."""
        most = self.account.free_at_most(copy, overhead_bytes)
        if copy.need.fits_in(most):
            return None
        itself = _words(model.Footprint(overhead_bytes))
        return errors.ModelTooBig(
            f"the model needs {_words(copy.need)}; this worker could free at most {_words(_not_negative(most))} of its budget: "
            f"its process itself takes {itself}"
        )


def _not_negative(footprint: model.Footprint) -> model.Footprint:
    return model.Footprint(max(0, footprint.host_bytes), max(0, footprint.gpu_bytes))


def _words(footprint: model.Footprint) -> str:
    gpu = f" and {footprint.gpu_bytes / 2**20:.1f} MiB of GPU memory" if footprint.gpu_bytes else ""
    return f"{footprint.host_bytes / 2**20:.1f} MiB of memory{gpu}"


def _count_use(copy: copies.Copy, now_s: float) -> None:
    copy.uses = eviction.decayed(copy.uses, now_s - copy.last_used_s) + 1.0
    copy.last_used_s = now_s
