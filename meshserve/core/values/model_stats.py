"""Counters of one model on one worker: requests, runs and batch sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

BATCH_SIZES_MAX = 32
"""Batch sizes that are counted separately for a model; others count only in the totals.

Clients choose the sizes, so their number must be bounded.
"""


@dataclass(slots=True)
class DurationStat:
    """How many times something happened, and how long that took in total."""

    count: int = 0
    total_s: float = 0.0

    def record(self, took_s: float) -> None:
        """Count one more that took `took_s`."""
        self.count += 1
        self.total_s += took_s

    def add(self, other: DurationStat) -> None:
        """Add the counts of another statistic."""
        self.count += other.count
        self.total_s += other.total_s


@dataclass(slots=True)
class ModelStats:
    """One model's counters. `rows` counts the rows of answered requests.

    `last_ms` is the Unix time of the last answer in ms. `joins_stopped` counts copies whose
    requests are joined no more, because a joined run gave another answer. `saturated_s` is the
    time in which more requests waited than the next run could take, since the last report, and
    `joined_rows` were answered by joined runs since then.
    `failures_by_kind` are by class names of errors, None before the first. `last_error` is what the
    model's code raised last, at the Unix time `last_error_ms`. `quiet_until_s` (on the monotonic
    clock) and `untold` bound the log's lines of that.
    """

    success: DurationStat = field(default_factory=DurationStat)
    failure: DurationStat = field(default_factory=DurationStat)
    queued: DurationStat = field(default_factory=DurationStat)
    computed: DurationStat = field(default_factory=DurationStat)
    saturated_s: float = 0.0
    joins_stopped: int = 0
    joined_rows: int = 0
    rows: int = 0
    last_ms: int = 0
    batches: dict[int, DurationStat] = field(default_factory=dict)
    # Most models never fail, and an empty dict for each of them takes memory.
    failures_by_kind: dict[str, int] | None = None
    last_error: str = ""
    last_error_ms: int = 0
    quiet_until_s: float = 0.0
    untold: int = 0

    def record_answer(self, rows: int, took_s: float, at_s: float) -> None:
        """Count an answered request of `rows` rows; `at_s` is Unix time."""
        self.success.record(took_s)
        self.rows += rows
        self.last_ms = int(at_s * 1000)

    def record_failure(self, kind: str, took_s: float) -> None:
        """Count a failed request by the kind of its error."""
        self.failure.record(took_s)
        kinds = self.failures_by_kind = self.failures_by_kind or {}
        kinds[kind] = kinds.get(kind, 0) + 1

    def record_run(self, rows: int, took_s: float) -> None:
        """Count one execution of the model on `rows` rows."""
        self.computed.record(took_s)
        stat = self.batches.get(rows)
        if stat is None and len(self.batches) < BATCH_SIZES_MAX:
            stat = self.batches[rows] = DurationStat()
        if stat is not None:
            stat.record(took_s)

    def add(self, other: ModelStats) -> None:
        """Add what another worker has counted for the same model; `other` stays unchanged."""
        self.success.add(other.success)
        self.failure.add(other.failure)
        self.queued.add(other.queued)
        self.computed.add(other.computed)
        # Not `saturated_s` and `joined_rows`: they count since a worker's last report.
        self.rows += other.rows
        self.joins_stopped += other.joins_stopped
        self.last_ms = max(self.last_ms, other.last_ms)
        if other.last_error_ms > self.last_error_ms:
            self.last_error, self.last_error_ms = other.last_error, other.last_error_ms
        for kind, count in (other.failures_by_kind or {}).items():
            kinds = self.failures_by_kind = self.failures_by_kind or {}
            kinds[kind] = kinds.get(kind, 0) + count
        for size, stat in other.batches.items():
            self.batches.setdefault(size, DurationStat()).add(stat)
