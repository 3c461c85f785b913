"""Exponential back-off: how long to wait before trying again what failed, one formula for all."""

from __future__ import annotations

import math
from dataclasses import dataclass

DOUBLINGS_MAX = 32
"""More doublings than any cap needs; without a bound the power overflows after 1,024 failures."""


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    """The waits after failures in a row: `base_s`, doubled with each failure, up to `cap_s`.

    A failure is often an accident (a killed process, a busy node), and then the next try succeeds;
    where its cause lasts, every try costs a start, so waiting twice as long each time bounds that
    cost, and the cap bounds the wait once the cause is gone. There is no jitter: one controller
    schedules all tries, so no independent clients can fall into step.
    `is_first_immediate` tries again at once after the first failure in a row.
    What ran for longer than `calm_s` before it failed did not fail in a row.
    """

    base_s: float
    cap_s: float
    calm_s: float = math.inf
    is_first_immediate: bool = False

    def wait_s(self, failures: int) -> float:
        """Return the wait in seconds after `failures` (at least 1) failures in a row."""
        doublings = failures - 2 if self.is_first_immediate else failures - 1
        if doublings < 0:
            return 0.0
        return min(self.base_s * 2.0 ** min(doublings, DOUBLINGS_MAX), self.cap_s)


@dataclass(slots=True)
class Backoff:
    """Failures in a row of one thing, and the time of its next try."""

    policy: BackoffPolicy
    failures: int = 0
    retry_at_s: float = -math.inf

    def record_failure(self, now_s: float, ran_s: float = 0.0) -> None:
        """Count a failure at `now_s`, after `ran_s` seconds of success, and schedule a try."""
        if ran_s > self.policy.calm_s:
            self.failures = 0
        self.failures += 1
        self.retry_at_s = now_s + self.policy.wait_s(self.failures)

    def reset(self) -> None:
        """Forget all failures: the next one is the first of its row."""
        self.failures = 0
        self.retry_at_s = -math.inf

    def forgive(self) -> None:
        """Take the last failure back, because its cause was found elsewhere; a try is due now."""
        self.failures = max(0, self.failures - 1)
        self.retry_at_s = -math.inf

    def is_due(self, now_s: float) -> bool:
        """Return whether the next try may begin."""
        return now_s >= self.retry_at_s
