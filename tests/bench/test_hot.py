from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import hot


@pytest.mark.parametrize(("load", "workers"), [(0.5, 1), (2.0, 3), (8.0, 8)])
def test_in_simulation_all_is_answered_by_as_few_workers_as_can(load: Any, workers: Any) -> None:
    seen = hot.simulate(load)
    assert seen.served == pytest.approx(load)
    assert seen.workers == workers
    assert seen.settled_s < hot.SIMULATED_S / 2


def test_targets_are_held_beside_one_worker() -> None:
    simulated = [hot.simulate(load) for load in hot.LOADS]
    for several, is_reached in (
        (hot.Served(301.0, 1.0, 4, 5.0), True),
        (hot.Served(299.0, 1.0, 4, 5.0), False),
    ):
        measured = hot.summarise(hot.Served(100.0, 3.0, 1), several, simulated)
        assert [claim.is_reached for claim in measured.claims] == [is_reached, True]
        assert measured.tables[0].rows[1][0] == "4 workers"


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_model_that_everybody_asks_for_comes_to_every_worker(tmp_path: Path) -> None:
    seen = hot.serve(tmp_path, hot.WORKERS, 2.0)
    assert seen.workers == hot.WORKERS
    assert seen.requests_per_s > 1.5 / hot.WAIT_S
