"""The lifecycle of one copy on a worker: its phases and every legal move.

absent     → queued: requested
queued     → loading: admitted, onloading: onload ordered, absent: given up, offloaded: not onloaded
loading    → ready: loaded, failed: load failed, stuck: timed out
stuck      → ready: loaded, failed: load failed
failed     → queued: requested
ready      → draining: drain ordered, offloading: offload ordered, evicting: eviction ordered
draining   → evicting: eviction ordered
offloading → offloaded: offloaded, evicting: move failed
offloaded  → queued: requested, evicting: eviction ordered
onloading  → ready: loaded, evicting: move failed
evicting   → absent: freed

Each line is "phase → next phase: move"; a test holds the diagram against the table.
"""

from __future__ import annotations

import enum

from meshserve.core import state_table


class CopyPhase(enum.Enum):
    """The phases of a copy.

    QUEUED: requests wait for the copy, and the copy waits for memory or its turn. STUCK: the load
    has exceeded its timeout and still runs. DRAINING: running requests finish, new ones wait.
    OFFLOADED: the copy is in host memory only.
    """

    ABSENT = "absent"
    QUEUED = "queued"
    LOADING = "loading"
    STUCK = "stuck"
    FAILED = "failed"
    READY = "ready"
    DRAINING = "draining"
    OFFLOADING = "offloading"
    OFFLOADED = "offloaded"
    ONLOADING = "onloading"
    EVICTING = "evicting"


class CopyMove(enum.Enum):
    """The moves between phases."""

    REQUESTED = "requested"
    ADMITTED = "admitted"
    LOADED = "loaded"
    LOAD_FAILED = "load failed"
    TIMED_OUT = "timed out"
    GIVEN_UP = "given up"
    DRAIN_ORDERED = "drain ordered"
    EVICTION_ORDERED = "eviction ordered"
    FREED = "freed"
    OFFLOAD_ORDERED = "offload ordered"
    OFFLOADED = "offloaded"
    ONLOAD_ORDERED = "onload ordered"
    ONLOAD_GIVEN_UP = "not onloaded"
    MOVE_FAILED = "move failed"


LIFECYCLE = state_table.Lifecycle(
    "copy",
    {
        (CopyPhase.ABSENT, CopyMove.REQUESTED): CopyPhase.QUEUED,
        (CopyPhase.QUEUED, CopyMove.ADMITTED): CopyPhase.LOADING,
        (CopyPhase.QUEUED, CopyMove.ONLOAD_ORDERED): CopyPhase.ONLOADING,
        (CopyPhase.QUEUED, CopyMove.GIVEN_UP): CopyPhase.ABSENT,
        (CopyPhase.QUEUED, CopyMove.ONLOAD_GIVEN_UP): CopyPhase.OFFLOADED,
        (CopyPhase.LOADING, CopyMove.LOADED): CopyPhase.READY,
        # A load that fails leaves nothing in memory, so FAILED needs no eviction.
        (CopyPhase.LOADING, CopyMove.LOAD_FAILED): CopyPhase.FAILED,
        (CopyPhase.LOADING, CopyMove.TIMED_OUT): CopyPhase.STUCK,
        # A thread can't be killed, so a load that timed out still ends some time, well or badly.
        (CopyPhase.STUCK, CopyMove.LOADED): CopyPhase.READY,
        (CopyPhase.STUCK, CopyMove.LOAD_FAILED): CopyPhase.FAILED,
        (CopyPhase.FAILED, CopyMove.REQUESTED): CopyPhase.QUEUED,
        (CopyPhase.READY, CopyMove.DRAIN_ORDERED): CopyPhase.DRAINING,
        (CopyPhase.READY, CopyMove.OFFLOAD_ORDERED): CopyPhase.OFFLOADING,
        (CopyPhase.READY, CopyMove.EVICTION_ORDERED): CopyPhase.EVICTING,
        (CopyPhase.DRAINING, CopyMove.EVICTION_ORDERED): CopyPhase.EVICTING,
        (CopyPhase.OFFLOADING, CopyMove.OFFLOADED): CopyPhase.OFFLOADED,
        # A copy whose move failed is usable on neither device.
        (CopyPhase.OFFLOADING, CopyMove.MOVE_FAILED): CopyPhase.EVICTING,
        (CopyPhase.OFFLOADED, CopyMove.REQUESTED): CopyPhase.QUEUED,
        (CopyPhase.OFFLOADED, CopyMove.EVICTION_ORDERED): CopyPhase.EVICTING,
        (CopyPhase.ONLOADING, CopyMove.LOADED): CopyPhase.READY,
        (CopyPhase.ONLOADING, CopyMove.MOVE_FAILED): CopyPhase.EVICTING,
        (CopyPhase.EVICTING, CopyMove.FREED): CopyPhase.ABSENT,
    },
)

IDLE = frozenset({CopyPhase.READY, CopyPhase.OFFLOADED})
"""Phases of a copy in memory, which may be evicted unless it is leased or pinned."""

INCOMING = frozenset({CopyPhase.LOADING, CopyPhase.ONLOADING})
"""Phases of a copy on its way into memory; `WorkerLimits.loads_parallel` bounds their number."""

WAITABLE = frozenset(
    {
        CopyPhase.QUEUED,
        CopyPhase.LOADING,
        CopyPhase.DRAINING,
        CopyPhase.OFFLOADING,
        CopyPhase.ONLOADING,
        CopyPhase.EVICTING,
    }
)
"""Phases in which requests may wait, because a later event answers them or queues the copy."""
