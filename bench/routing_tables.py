"""Tables, charts and goals for the figures of bench/routing.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from bench import results, runs, systems

USUAL = 32
SIZE_IN_FLIGHT = 4
CPU_US_MAX, P50_MS_MAX, P99_MS_MAX = 110.0, 0.40, 1.2
SPEED_RATIOS = {
    systems.MLSERVER: 7.0,
    systems.PYTRITON: 4.5,
    systems.RAY_DEFAULT: 45.0,
    systems.RAY_TUNED: 8.0,
}
QUICK_SPEED_RATIO, QUICK_CPU_RATIO, QUICK_BIG_RATIO = 1.2, 1.0, 0.3
SPEEDS = ("req/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/req", "req/s ×", "CPU ×")
ONE, MANY, BIG = runs.in_flight(1), runs.in_flight(USUAL), "1 MB"


def summarise(
    rounds: Sequence[runs.Round],
    sizes: Mapping[str, object],
    missing: Mapping[str, str],
    *,
    is_quick: bool = False,
) -> results.Results:
    """Return everything of these rounds; `missing` has peers and reasons."""
    middle = runs.medians(rounds)
    if systems.OURS not in middle:
        return results.Results(
            len(rounds),
            sizes,
            tables=tuple(tables(middle, missing)),
            figures={"rounds": runs.as_json(rounds)},
        )
    claims = floors(middle) if is_quick else targets(middle)
    figures = {"rounds": runs.as_json(rounds)}
    return results.Results(
        len(rounds),
        sizes,
        tuple(claims),
        tuple(tables(middle, missing)),
        tuple(charts(middle)),
        figures,
    )


def targets(middle: runs.Round) -> Iterator[results.Claim]:
    """Return the goals of a routed prediction."""
    ours = middle[systems.OURS].runs
    yield results.at_most(
        "CPU per routed gRPC prediction, everything on", ours[MANY].cpu_us, "µs", CPU_US_MAX
    )
    for peer, ratio in SPEED_RATIOS.items():
        if peer in middle:
            theirs = middle[peer].runs[MANY].requests_per_s
            yield results.times(
                f"req/s, {MANY}", "req/s", ours[MANY].requests_per_s, (peer, theirs), ratio
            )
    yield results.at_most(f"p50, {ONE}", ours[ONE].p50_ms, "ms", P50_MS_MAX)
    yield results.at_most(f"p99, {ONE}", ours[ONE].p99_ms, "ms", P99_MS_MAX)


def floors(middle: runs.Round) -> Iterator[results.Claim]:
    """Return floors that a regression of 2 × misses and a busy machine does not."""
    ours, bare = middle[systems.OURS].runs, middle[systems.BARE].runs
    for key, floor in {MANY: QUICK_SPEED_RATIO, BIG: QUICK_BIG_RATIO}.items():
        yield results.times(
            f"req/s, {key}",
            "req/s",
            ours[key].requests_per_s,
            (systems.BARE, bare[key].requests_per_s),
            floor,
        )
    yield results.times_at_most(
        f"CPU, {MANY}", "µs", ours[MANY].cpu_us, (systems.BARE, bare[MANY].cpu_us), QUICK_CPU_RATIO
    )


def tables(middle: runs.Round, missing: Mapping[str, str]) -> Iterator[results.Table]:
    """Return a table for each run, and one of memory and start."""
    keys = dict.fromkeys(key for figures in middle.values() for key in figures.runs)
    for number, key in enumerate(keys):
        yield _table(key, middle, missing if number == 0 else {})
    several = {name: figures for name, figures in middle.items() if name != systems.ALONE}
    rows = tuple(
        (name, results.figure(figures.memory_mib), results.figure(figures.ready_s))
        for name, figures in several.items()
    )
    yield results.Table(
        "memory of all processes after the load, and the start",
        ("system", "MiB", "s to the first answer"),
        rows,
    )


def _table(key: str, middle: runs.Round, missing: Mapping[str, str]) -> results.Table:
    by_system = {name: figures.runs[key] for name, figures in middle.items() if key in figures.runs}
    bare = by_system.get(systems.BARE)
    rows = tuple((name, *_cells(run, bare)) for name, run in by_system.items())
    title = (
        f"input of {key}, {SIZE_IN_FLIGHT} in flight"
        if key.endswith("B")
        else f"tiny ONNX model, {key}"
    )
    return results.Table(f"{title} (×: beside {systems.BARE})", ("system", *SPEEDS), rows, missing)


def _cells(run: runs.Run, bare: runs.Run | None) -> tuple[str, ...]:
    figures = (run.requests_per_s, run.p50_ms, run.p99_ms, run.p999_ms, run.cpu_us)
    ratios = (
        (run.requests_per_s / bare.requests_per_s, run.cpu_us / bare.cpu_us)
        if bare
        else (runs.NOT_MEASURED,) * 2
    )
    return tuple(results.figure(value) for value in (*figures, *ratios))


def charts(middle: runs.Round) -> Iterator[results.Chart]:
    """Return speed and CPU beside every peer."""
    by_system = {
        name: figures.runs[MANY] for name, figures in middle.items() if MANY in figures.runs
    }
    yield _chart(
        "routing-speed",
        f"Predictions a second, {MANY}",
        "req/s",
        {name: run.requests_per_s for name, run in by_system.items()},
    )
    yield _chart(
        "routing-cpu",
        "CPU of a prediction, all serving processes",
        "µs",
        {name: run.cpu_us for name, run in by_system.items()},
    )
    single = {
        name: figures.runs[ONE].p50_ms
        for name, figures in middle.items()
        if ONE in figures.runs and name != systems.ALONE
    }
    yield _chart("routing-single", f"Median latency, {ONE}", "ms", single)


def _chart(name: str, title: str, unit: str, values: Mapping[str, float]) -> results.Chart:
    bars = tuple(
        results.Bar(system, value, system == systems.OURS) for system, value in values.items()
    )
    return results.Chart(name, title, unit, bars)
