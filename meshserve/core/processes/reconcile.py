"""One lifecycle for workers and gateways, and the reconciler that starts and stops them.

The lifecycle is the table below:

absent   → starting: start ordered
starting → ready: serving, draining: stop ordered, lost: lost
ready    → starting: restarted, draining: stop ordered, lost: lost
draining → absent: stopped
lost     → starting: start ordered, absent: given up

Nothing else moves a process from one state to another.
"""

from __future__ import annotations

import abc
import enum
import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from meshserve.core import backoff, state_table
from meshserve.core.values import commands


class ProcessState(enum.StrEnum):
    """The states of a worker or gateway. Users see these words, except for `absent`."""

    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    LOST = "lost"


class ProcessMove(enum.Enum):
    """The moves between the states of a worker or gateway."""

    START_ORDERED = "start ordered"
    SERVING = "serving"
    RESTARTED = "restarted"
    STOP_ORDERED = "stop ordered"
    STOPPED = "stopped"
    LOST = "lost"
    GIVEN_UP = "given up"


LIFECYCLE = state_table.Lifecycle(
    "process",
    {
        (ProcessState.ABSENT, ProcessMove.START_ORDERED): ProcessState.STARTING,
        (ProcessState.STARTING, ProcessMove.SERVING): ProcessState.READY,
        (ProcessState.STARTING, ProcessMove.STOP_ORDERED): ProcessState.DRAINING,
        (ProcessState.STARTING, ProcessMove.LOST): ProcessState.LOST,
        (ProcessState.READY, ProcessMove.RESTARTED): ProcessState.STARTING,
        (ProcessState.READY, ProcessMove.STOP_ORDERED): ProcessState.DRAINING,
        (ProcessState.READY, ProcessMove.LOST): ProcessState.LOST,
        (ProcessState.DRAINING, ProcessMove.STOPPED): ProcessState.ABSENT,
        (ProcessState.LOST, ProcessMove.START_ORDERED): ProcessState.STARTING,
        (ProcessState.LOST, ProcessMove.GIVEN_UP): ProcessState.ABSENT,
    },
)

RUNNING = frozenset({ProcessState.STARTING, ProcessState.READY})
"""The states of a process that has been started, and neither told to stop nor lost."""

SettingsT = TypeVar("SettingsT")


@dataclass(slots=True)
class ProcessRecord(Generic[SettingsT]):
    """One process as the mesh knows it. `reason` says why it was lost, until it runs again."""

    id: str
    settings: SettingsT
    backoff: backoff.Backoff
    state: ProcessState = ProcessState.ABSENT
    restarts: int = 0
    started_s: float = 0.0
    reason: str = ""

    def loss(self, reason: str) -> str:
        """Return why its process was lost, "" if it was to end: the end may be noticed first."""
        return "" if self.state is ProcessState.DRAINING else reason


RecordT = TypeVar("RecordT", bound=ProcessRecord[Any])
WantedT = TypeVar("WantedT")


class Reconciler(abc.ABC, Generic[RecordT, SettingsT, WantedT]):
    """Starts missing processes, restarts lost ones, and drains those that are not wanted.

    A subclass provides the commands of its kind of process. `WantedT` is the type of an element of
    the desired state: a pool for workers, a node for gateways.
    """

    def __init__(self, out: commands.Outbox) -> None:
        self.records: dict[str, RecordT] = {}
        self._out = out
        self._moves = state_table.MoveLog(LIFECYCLE)
        # The desired state of the last call, and the time before which it causes no commands.
        self._settled: tuple[tuple[WantedT, ...], float] | None = None

    @abc.abstractmethod
    def _settings_by_id(self, wanted: tuple[WantedT, ...]) -> dict[str, SettingsT]: ...

    @abc.abstractmethod
    def _new_record(self, id_: str, settings: SettingsT) -> RecordT: ...

    @abc.abstractmethod
    def _order_start(self, record: RecordT) -> None: ...

    @abc.abstractmethod
    def _order_stop(self, record: RecordT) -> None: ...

    def _may_replace(self, record: RecordT) -> bool:  # noqa: ARG002 - subclasses look at it
        """Return whether a process with outdated settings may be stopped now."""
        return True

    def _on_change(self, record: RecordT) -> None:
        """Hook: the record has changed its state, or is removed."""

    def reconcile(self, wanted: tuple[WantedT, ...], now_s: float) -> None:
        """Order the starts and stops that bring the processes nearer to the desired state.

        A call costs one comparison while nothing has changed and no restart is due.
        """
        # Most events change no process. A look at each of 1,000 workers would cost more than the
        # event.
        if self._settled is not None and self._settled[0] == wanted and now_s < self._settled[1]:
            return
        # Set before the processes are looked at, because a stop or a removal takes it back.
        self._settled = (wanted, math.inf)
        self._start_missing_and_follow(self._settings_by_id(wanted), now_s)
        if self._settled is not None:
            lost = (r for r in self.records.values() if r.state is ProcessState.LOST)
            self._settled = (
                wanted,
                min((record.backoff.retry_at_s for record in lost), default=math.inf),
            )

    def _start_missing_and_follow(self, settings: dict[str, SettingsT], now_s: float) -> None:
        # A list of those before, because records are added and removed below.
        existing = list(self.records.values())
        # Missing processes start first: while one starts, `_may_replace` keeps the others running.
        for id_ in [id_ for id_ in settings if id_ not in self.records]:
            self.records[id_] = self._new_record(id_, settings[id_])
            self._start(self.records[id_], now_s)
        for record in existing:
            self._follow(record, settings.get(record.id), now_s)

    def _start(self, record: RecordT, now_s: float) -> None:
        is_new = record.state is ProcessState.ABSENT
        record.state = self._moves.after(record.id, record.state, ProcessMove.START_ORDERED)
        record.started_s = now_s
        record.restarts += not is_new
        self._order_start(record)

    def _follow(self, record: RecordT, wanted: SettingsT | None, now_s: float) -> None:
        if record.state is ProcessState.LOST:
            self._follow_lost(record, wanted, now_s)
        elif record.state in RUNNING and (
            wanted is None or (record.settings != wanted and self._may_replace(record))
        ):
            self._move(record, ProcessMove.STOP_ORDERED)
            self._order_stop(record)

    def _follow_lost(self, record: RecordT, wanted: SettingsT | None, now_s: float) -> None:
        if wanted is None:
            self._remove(record, ProcessMove.GIVEN_UP)
        elif record.backoff.is_due(now_s):
            # It starts anew anyway, so it takes the newest settings without another restart.
            record.settings = wanted
            self._start(record, now_s)

    def _lose(self, record: RecordT, reason: str, now_s: float) -> None:
        """Mark a process lost and schedule its restart; a draining one counts as stopped."""
        if record.state is ProcessState.DRAINING:
            self._remove(record, ProcessMove.STOPPED)
            return
        record.backoff.record_failure(now_s, ran_s=now_s - record.started_s)
        record.reason = reason
        self._move(record, ProcessMove.LOST)

    def _move(self, record: RecordT, move: ProcessMove) -> None:
        record.state = self._moves.after(record.id, record.state, move)
        self._changed(record)

    def _remove(self, record: RecordT, move: ProcessMove) -> None:
        record.state = self._moves.after(record.id, record.state, move)
        del self.records[record.id]
        self._changed(record)

    def _changed(self, record: RecordT) -> None:
        self._settled = None
        self._on_change(record)
