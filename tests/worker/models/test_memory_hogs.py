"""Which processes are killed when their worker is over its budget."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from meshserve.worker.models import isolated_process, loader, memory_hogs

MIB = 1 << 20
BUDGET_BYTES = 1000 * MIB


@pytest.fixture
def process() -> Iterator[isolated_process.IsolatedProcess]:
    pair, control = socket.socketpair()
    with pair:
        taking = isolated_process.IsolatedProcess("k", control, pair, lambda _: None)
        yield taking
        taking.close()


@pytest.mark.parametrize(
    ("taken", "booked", "is_killed"),
    [(1000, 50, False), (1001, 50, True), (1064, 500, False), (1065, 500, True)],
)
def test_the_trial_of_a_suspect_may_take_the_budget_as_a_run_in_the_worker_may(
    process: isolated_process.IsolatedProcess, taken: int, booked: int, is_killed: bool
) -> None:
    process.key = loader.alone_key("k")
    memory_hogs.stop({process: taken * MIB}, {process: booked * MIB}, BUDGET_BYTES)
    assert bool(process.stopped_for) is is_killed


@pytest.mark.parametrize(
    ("taken", "booked", "is_killed"),
    [
        (164, 50, False),
        (165, 50, True),
        (863, 400, False),
        (1000, None, False),
        (1001, None, True),
    ],
)
def test_a_process_is_killed_that_grew_to_more_than_twice_its_footprint(
    process: isolated_process.IsolatedProcess, taken: int, booked: int | None, is_killed: bool
) -> None:
    booked_bytes: dict[isolated_process.IsolatedProcess, int] = {}
    if booked is not None:
        booked_bytes[process] = booked * MIB
    memory_hogs.stop({process: taken * MIB}, booked_bytes, BUDGET_BYTES)
    assert bool(process.stopped_for) is is_killed
    if is_killed:
        assert process.stopped_for.startswith(f"it took {taken} MiB, and ")
