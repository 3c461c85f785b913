"""Failed requests of a model: counted by kind, and told in the log now and then."""

from __future__ import annotations

import logging
import time

from meshserve import errors
from meshserve.core.values import model_stats
from meshserve.logs import log_lines, run_context

logger = logging.getLogger(__name__)

QUIET_S = 10.0
"""How long what a model raises is only counted after a traceback of it was logged."""

REASON_CHARS_MAX = 500

MODELS_FAULTS = (errors.ModelRaised, errors.ModelDied)
"""What the model's code has done; other errors are the caller's or the mesh's."""


def count(
    stats: model_stats.ModelStats,
    labels: run_context.RunLabels,
    error: errors.MeshError,
    began_s: float,
) -> None:
    """Count a failed request, and log the traceback of the model's own error at a bounded rate.

    The request began at `began_s` on the clock of `time.perf_counter`.
    """
    stats.record_failure(type(error).__name__, time.perf_counter() - began_s)
    if not isinstance(error, MODELS_FAULTS):
        return
    stats.last_error, stats.last_error_ms = (
        error.message[:REASON_CHARS_MAX],
        time.time_ns() // 10**6,
    )
    now_s = time.monotonic()
    if now_s < stats.quiet_until_s:
        stats.untold += 1
        return
    more = f" ({stats.untold} more failed so since the last such line)" if stats.untold else ""
    stats.quiet_until_s, stats.untold = now_s + QUIET_S, 0
    logger.warning(
        "a request failed: %s%s",
        error.message,
        more,
        # That of the model's code. The error around it is ours, and its message stands above.
        exc_info=error.__cause__,
        extra={log_lines.LABELS: labels},
    )
