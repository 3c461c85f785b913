"""What is counted for each model: plain numbers, read when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass, field

BATCH_SIZES_MAX = 32
"""How many batch sizes of one model are told apart; further ones count in the totals only."""


@dataclass(slots=True)
class DurationStat:
    """How often and how long in all."""

    count: int = 0
    total_s: float = 0.0

    def add(self, took_s: float) -> None:
        """Once more."""
        self.count += 1
        self.total_s += took_s


@dataclass(slots=True)
class ModelStats:
    """One model's numbers. `rows` counts inferences (rows of batches), `runs` executions of the model.

    `pressed_s`: how long more requests waited than could run next, since somebody last asked and set it to nothing.
    """

    success: DurationStat = field(default_factory=DurationStat)
    failure: DurationStat = field(default_factory=DurationStat)
    queued: DurationStat = field(default_factory=DurationStat)
    computed: DurationStat = field(default_factory=DurationStat)
    pressed_s: float = 0.0
    rows: int = 0
    last_ms: int = 0
    batches: dict[int, DurationStat] = field(default_factory=dict)

    def answered(self, rows: int, took_s: float, at_s: float) -> None:
        """A request was answered; `at_s` is the wall clock."""
        self.success.add(took_s)
        self.rows += rows
        self.last_ms = int(at_s * 1000)

    def ran(self, rows: int, took_s: float) -> None:
        """The model was executed once on so many rows."""
        self.computed.add(took_s)
        if rows in self.batches or len(self.batches) < BATCH_SIZES_MAX:
            self.batches.setdefault(rows, DurationStat()).add(took_s)
