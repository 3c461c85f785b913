"""Measure from an engine's counts how fast it is, and whether it hangs."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from meshserve.core.interfaces import llm_engine

WINDOW_S = 30.0
SAMPLE_S = 1.0
Histogram: TypeAlias = tuple[tuple[float, int], ...]


class EngineProgress:
    """An engine's counts over the last WINDOW_S seconds.

    `stalled_s` says for how long requests have run or waited without any progress.
    """

    def __init__(self) -> None:
        self.stalled_s = 0.0
        self._samples: deque[tuple[float, llm_engine.EngineCounts]] = deque()
        self._latest = (0.0, llm_engine.EngineCounts())
        self._progressed_s = 0.0

    def observe(self, now_s: float, counts: llm_engine.EngineCounts) -> None:
        """Add the engine's counts at time `now_s`."""
        _, before = self._latest
        # Without requests nothing can progress, so the first ones start a new measurement.
        is_busy = counts.running + counts.waiting > 0
        was_busy = before.running + before.waiting > 0
        if not is_busy or not was_busy or counts.progress != before.progress:
            self._progressed_s = now_s
        self.stalled_s = now_s - self._progressed_s
        self._latest = (now_s, counts)
        self._keep(now_s, counts)

    def _keep(self, now_s: float, counts: llm_engine.EngineCounts) -> None:
        samples = self._samples
        # Counts come ten times a second, and that many samples would tell no more.
        if not samples or now_s - samples[-1][0] >= SAMPLE_S:
            samples.append((now_s, counts))
        # One sample from before the window stays, because rates are measured from it on.
        while len(samples) > 1 and now_s - samples[1][0] >= WINDOW_S:
            samples.popleft()

    def tokens_per_s(self) -> float:
        """Return the tokens per second of all requests together, within the window."""
        if not self._samples:
            return 0.0
        (began_s, first), (now_s, last) = self._samples[0], self._latest
        return (last.tokens - first.tokens) / (now_s - began_s) if now_s > began_s else 0.0

    def ttft_s(self, share: float) -> float:
        """Return the time to first token that a `share` (0 to 1) of the requests did not exceed.

        It is of the requests within the window, or of all since the start if the window has none.
        """
        _, now = self._latest
        recent = _difference(now.ttft, self._samples[0][1].ttft) if self._samples else ()
        return _quantile(recent if recent and recent[-1][1] else now.ttft, share)


def _difference(now: Histogram, then: Histogram) -> Histogram:
    before = dict(then)
    return tuple((bound_s, count - before.get(bound_s, 0)) for bound_s, count in now)


def _quantile(buckets: Histogram, share: float) -> float:
    """Interpolate within the bucket, like Prometheus' histogram_quantile."""
    rank = share * buckets[-1][1] if buckets else 0.0
    lower_s, below = 0.0, 0
    for bound_s, count in buckets:
        if count >= rank and count > below:
            # The last bucket has no upper end to interpolate to.
            if bound_s == float("inf"):
                return lower_s
            return lower_s + (bound_s - lower_s) * (rank - below) / (count - below)
        lower_s, below = bound_s, count
    return 0.0
