"""Tables, a chart and goals for the figures of bench/cold.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench import results, thrash, traffic

CACHED, DISK, LOCAL, S3 = (
    "evicted, page cache",
    "evicted, disk",
    "first request, local file",
    "first request, S3",
)
ATTACHED = "evicted, weights attached"
TINY = "5.6 KB"
P50_MS_MAX, P99_MS_MAX = 3.0, 15.0
# A cold hit's median beside the same file loaded in process, in the quick version.
QUICK_RATIO = 12.0


@dataclass(frozen=True)
class Stampede:
    """Many callers of one cold model at once: the worker's counts, and how long each waited."""

    size: str
    callers: int
    loads: int
    failures: int
    took_ms: Sequence[float]


def summarise(
    took_ms: Mapping[tuple[str, str], Sequence[float]],
    in_process_ms: Mapping[str, float],
    rushed: Sequence[Stampede],
    thrashed: thrash.Thrashed,
    *,
    is_quick: bool,
) -> results.Results:
    """Return tables, chart and goals."""
    claims = (
        *(floors if is_quick else targets)(took_ms, in_process_ms),
        *loads(rushed),
        *thrash_claims(thrashed),
    )
    tables = (places(took_ms, in_process_ms), crowds(rushed), thrash_table(thrashed))
    sizes = {
        "requests": {
            f"{place}, {size}": len(times_ms) for (place, size), times_ms in took_ms.items()
        },
        "callers": rushed[0].callers,
    }
    figures = {
        "took_ms": {
            f"{place}, {size}": list(times_ms) for (place, size), times_ms in took_ms.items()
        }
    }
    return results.Results(1, sizes, claims, tables, (chart(took_ms),), figures)


def targets(
    took_ms: Mapping[tuple[str, str], Sequence[float]], _in_process_ms: Mapping[str, float]
) -> Iterator[results.Claim]:
    """Return the goals for a tiny model."""
    for place in (CACHED, DISK):
        p50_ms, p99_ms = (
            float(percentile) for percentile in np.percentile(took_ms[place, TINY], [50, 99])
        )
        yield results.at_most(f"cold hit p50, tiny model, {place}", p50_ms, "ms", P50_MS_MAX)
        yield results.at_most(f"cold hit p99, tiny model, {place}", p99_ms, "ms", P99_MS_MAX)


def floors(
    took_ms: Mapping[tuple[str, str], Sequence[float]], in_process_ms: Mapping[str, float]
) -> Iterator[results.Claim]:
    """Return floors that a busy machine does not miss."""
    peer = ("onnxruntime in process", in_process_ms[TINY])
    yield results.times_at_most(
        f"cold hit p50, tiny model, {CACHED}",
        "ms",
        float(np.median(took_ms[CACHED, TINY])),
        peer,
        QUICK_RATIO,
    )


def loads(rushed: Sequence[Stampede]) -> Iterator[results.Claim]:
    """Return the claims of one load however many wait, and of no failure."""
    for stampede in rushed:
        yield results.exactly(
            f"loads for {stampede.callers} concurrent first requests, {stampede.size}",
            stampede.loads,
            "load",
            1,
        )
        yield results.exactly(
            f"failures of {stampede.callers} concurrent first requests, {stampede.size}",
            stampede.failures,
            "",
            0,
        )


def thrash_claims(thrashed: thrash.Thrashed) -> Iterator[results.Claim]:
    """Return the claim of no failure: all answers were checked."""
    wrong = len(traffic.failures(thrashed.asked))
    times = thrashed.models / thrashed.resident
    what = f"failures of {len(thrashed.asked):,} requests to {times:.1f} × the models that fit"
    yield results.exactly(what, wrong, "", 0)


def places(
    took_ms: Mapping[tuple[str, str], Sequence[float]], in_process_ms: Mapping[str, float]
) -> results.Table:
    """Return the table by place and size."""
    rows = []
    for (place, size), times_ms in took_ms.items():
        p50_ms, p99_ms, max_ms = (float(p) for p in np.percentile(times_ms, [50, 99, 100]))
        figures = (p50_ms, p99_ms, max_ms, in_process_ms[size], p50_ms / in_process_ms[size])
        rows.append(
            (place, size, str(len(times_ms)), *(results.figure(figure) for figure in figures))
        )
    head = (
        "where the artifact is",
        "size",
        "requests",
        "p50 ms",
        "p99 ms",
        "max ms",
        "in process ms",
        "×",
    )
    title = (
        "a request for an ONNX model that is not in memory "
        "(×: p50 beside the file loaded in process)"
    )
    return results.Table(title, head, tuple(rows), {ATTACHED: "bench/attach.py measures it"})


def crowds(rushed: Sequence[Stampede]) -> results.Table:
    """Return the table of stampedes."""
    head = ("size", "callers", "loads", "failures", "first ms", "p50 ms", "last ms")
    rows = []
    for stampede in rushed:
        figures = (float(p) for p in np.percentile(stampede.took_ms, [0, 50, 100]))
        rows.append(
            (
                stampede.size,
                str(stampede.callers),
                str(stampede.loads),
                str(stampede.failures),
                *(results.figure(figure) for figure in figures),
            )
        )
    return results.Table("concurrent first requests for one cold model", head, tuple(rows))


def thrash_table(thrashed: thrash.Thrashed) -> results.Table:
    """Return the table by whether the model was resident."""
    rows = []
    for kind, took_ms in traffic.kinds(thrashed.asked, thrashed.resident).items():
        figures = (
            [results.figure(float(p)) for p in np.percentile(took_ms, [50, 99, 100])]
            if len(took_ms)
            else ["-"] * 3
        )
        rows.append((kind, f"{len(took_ms):,}", *figures))
    what = (
        f"{thrashed.models:,} models, {thrashed.resident:,} fit; "
        f"{thrashed.requests_per_s:,.0f} req/s, {thrashed.evictions:,} evictions"
    )
    return results.Table(
        f"thrash: {what}", ("requests", "number", "p50 ms", "p99 ms", "max ms"), tuple(rows)
    )


def chart(took_ms: Mapping[tuple[str, str], Sequence[float]]) -> results.Chart:
    """Return the chart of medians."""
    bars = tuple(
        results.Bar(f"{size}, {place}", float(np.median(times_ms)), is_ours=True)
        for (place, size), times_ms in took_ms.items()
    )
    return results.Chart(
        "cold", "A request for a model that is not in memory, median", "ms", bars, is_log=True
    )
