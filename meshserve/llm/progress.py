"""What an engine's counts say over time: how fast it is, and whether it stands still. Pure; time is an argument."""

from __future__ import annotations

from collections import deque

from meshserve.core.interfaces import llm_engine

WINDOW_S = 30.0
SAMPLE_S = 1.0


class EngineProgress:
    """Takes an engine's counts as they come; tells of the last half minute."""

    def __init__(self) -> None:
        self.stalled_s = 0.0
        self._samples: deque[tuple[float, llm_engine.EngineCounts]] = deque()
        self._latest = (0.0, llm_engine.EngineCounts())
        self._progressed_s = 0.0

    def take(self, now_s: float, counts: llm_engine.EngineCounts) -> None:
        """See the engine at one moment."""
        _, before = self._latest
        is_busy = counts.running + counts.waiting > 0
        was_busy = before.running + before.waiting > 0
        if not is_busy or not was_busy or counts.progress != before.progress:
            self._progressed_s = now_s
        self.stalled_s = now_s - self._progressed_s
        self._latest = (now_s, counts)
        self._keep(now_s, counts)

    def _keep(self, now_s: float, counts: llm_engine.EngineCounts) -> None:
        samples = self._samples
        if not samples or now_s - samples[-1][0] >= SAMPLE_S:
            samples.append((now_s, counts))
        while len(samples) > 1 and now_s - samples[1][0] >= WINDOW_S:
            samples.popleft()

    def tokens_per_s(self) -> float:
        """Tokens made a second, all requests together."""
        if not self._samples:
            return 0.0
        (began_s, first), (now_s, last) = self._samples[0], self._latest
        return (last.tokens - first.tokens) / (now_s - began_s) if now_s > began_s else 0.0

    def ttft_s(self, share: float) -> float:
        """The time to the first token that this share of requests stayed within; of all that ever came where none came lately."""
        _, now = self._latest
        lately = _difference(now.ttft, self._samples[0][1].ttft) if self._samples else ()
        return _quantile(lately if lately and lately[-1][1] else now.ttft, share)


def _difference(
    now: tuple[tuple[float, int], ...], then: tuple[tuple[float, int], ...]
) -> tuple[tuple[float, int], ...]:
    before = dict(then)
    return tuple((bound_s, count - before.get(bound_s, 0)) for bound_s, count in now)


def _quantile(buckets: tuple[tuple[float, int], ...], share: float) -> float:
    """Linear between the bounds of the bucket that it falls into, as Prometheus reckons."""
    wanted = share * buckets[-1][1] if buckets else 0.0
    below_s, below = 0.0, 0
    for bound_s, count in buckets:
        if count >= wanted and count > below:
            return (
                below_s
                if bound_s == float("inf")
                else below_s + (bound_s - below_s) * (wanted - below) / (count - below)
            )
        below_s, below = bound_s, count
    return 0.0
