"""Requests to many models over time, made with a fixed seed.

Sizes are log-normal; load times grow with them, by library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MEDIAN_BYTES, SIZE_SIGMA, SIZE_MAX_TIMES = 2 << 20, 1.2, 32
LOAD_S_MIN, LOAD_BYTES_PER_S, LOAD_SIGMA = 0.002, 500e6, 1.0
RATE_PER_S = 100.0
DAY_S = 86_400.0
DRIFTS, DRIFT_SHARE = 50, 0.05
TIMER_SHARE, BURST_SHARE, BURST_S, BURST_REQUESTS_MAX = 0.3, 0.1, 600.0, 200


@dataclass(frozen=True)
class Models:
    """The models: their sizes and load times."""

    bytes: np.ndarray
    load_s: np.ndarray

    def __len__(self) -> int:
        return len(self.bytes)


@dataclass(frozen=True)
class Trace:
    """Requests in the order of their times."""

    name: str
    models: np.ndarray
    at_s: np.ndarray

    def __len__(self) -> int:
        return len(self.models)


def models(count: int, seed: int = 1) -> Models:
    """Return models with sizes between a 32nd and 32 times their median."""
    chance = np.random.default_rng(seed)
    sizes = MEDIAN_BYTES * np.exp(SIZE_SIGMA * chance.standard_normal(count))
    sizes = np.clip(sizes, MEDIAN_BYTES / SIZE_MAX_TIMES, MEDIAN_BYTES * SIZE_MAX_TIMES).astype(
        np.int64
    )
    by_library = np.exp(LOAD_SIGMA * chance.standard_normal(count))
    return Models(sizes, (LOAD_S_MIN + sizes / LOAD_BYTES_PER_S) * by_library)


def zipf(count: int, requests: int, exponent: float = 1.0, seed: int = 2) -> Trace:
    """Return a trace of constant popularity: the n-th model has n ** -exponent of it."""
    chance = np.random.default_rng(seed)
    places = chance.permutation(count)
    return Trace(
        "Zipf", places[_ranks(chance, count, requests, exponent)], np.arange(requests) / RATE_PER_S
    )


def zipf_drift(count: int, requests: int, exponent: float = 1.0, seed: int = 3) -> Trace:
    """Return the same, but a twentieth of the models trade places every fiftieth of the trace."""
    chance = np.random.default_rng(seed)
    places, ranks = chance.permutation(count), _ranks(chance, count, requests, exponent)
    parts = []
    for part in np.array_split(ranks, DRIFTS):
        parts.append(places[part])
        moved = chance.choice(count, size=max(2, int(count * DRIFT_SHARE)), replace=False)
        places[moved] = places[chance.permutation(moved)]
    return Trace("Zipf with drift", np.concatenate(parts), np.arange(requests) / RATE_PER_S)


def _ranks(chance: np.random.Generator, count: int, requests: int, exponent: float) -> np.ndarray:
    weights = np.arange(1, count + 1) ** -exponent
    bounds = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(bounds, chance.random(requests)), count - 1)


def day(count: int, requests: int, seed: int = 4) -> Trace:
    """Return a day like that of serverless functions: few models get nearly all requests.

    Three in ten are called by timers, the others at random with a wave over the day; one in ten of
    these also gets bursts.
    """
    chance = np.random.default_rng(seed)
    rates = np.exp(2.5 * chance.standard_normal(count))
    wanted = np.maximum(1, rates / rates.sum() * requests).astype(np.int64)
    kinds = chance.random(count)
    calls: list[tuple[int, np.ndarray]] = []
    for number in range(count):
        kind = (
            by_timer
            if kinds[number] < TIMER_SHARE
            else by_bursts
            if kinds[number] < TIMER_SHARE + BURST_SHARE
            else by_wave
        )
        calls.append((number, kind(chance, int(wanted[number]))))
    numbers = np.concatenate([np.full(len(times), number) for number, times in calls])
    at_s = np.concatenate([times for _, times in calls])
    order = np.argsort(at_s, kind="stable")
    return Trace("a day of functions", numbers[order], at_s[order])


def by_timer(chance: np.random.Generator, wanted: int) -> np.ndarray:
    """Return times at equal distances, shape (count,)."""
    return (chance.random() + np.arange(wanted)) * DAY_S / wanted


def by_wave(chance: np.random.Generator, wanted: int) -> np.ndarray:
    """Return random times, most of them at one time of day, shape (count,).

    Nights of a few time zones are quiet.
    """
    noon_s = chance.choice([0.25, 0.5, 0.75]) * DAY_S
    at_s = chance.random(3 * wanted) * DAY_S
    wave = 0.5 + 0.5 * np.cos((at_s - noon_s) / DAY_S * 2 * np.pi)
    return np.sort(at_s[chance.random(3 * wanted) < np.maximum(wave, 0.1)][:wanted])


def by_bursts(chance: np.random.Generator, wanted: int) -> np.ndarray:
    """Return times within a few windows of ten minutes, shape (count,)."""
    windows = chance.random(max(1, wanted // BURST_REQUESTS_MAX)) * (DAY_S - BURST_S)
    return np.sort(chance.choice(windows, wanted) + chance.random(wanted) * BURST_S)


TRACES: tuple[Callable[[int, int], Trace], ...] = (zipf, zipf_drift, day)
