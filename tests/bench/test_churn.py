from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import churn, solo
from meshserve.core.values import model


def reading(mib: Any, files: int = 5, threads: int = 7) -> Any:
    return churn.Reading(mib << 20, files, threads)


def test_drift_is_of_the_last_tenth_against_the_first_after_warm_up() -> None:
    readings = [reading(900), reading(900), *[reading(100)] * 9, *[reading(101)] * 9]
    before, after = churn.drifted(readings)
    assert (before.private_bytes >> 20, after.private_bytes >> 20) == (100, 101)
    assert churn.Churned(10, 1.0, before, after).drift == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("after", "missed"),
    [
        (reading(100), 0),
        (reading(102), 1),
        (reading(100, files=6), 1),
        (reading(100, threads=8), 1),
        (reading(90, 4, 6), 0),
    ],
)
def test_every_target_can_be_missed(after: Any, missed: Any) -> None:
    measured = churn.summarise(
        {"onnx": churn.Churned(10, 1.0, reading(100), after)}, is_quick=False
    )
    assert sum(not claim.is_reached for claim in measured.claims) == missed


@pytest.mark.slow
async def test_models_come_and_go_through_a_real_worker(tmp_path: Path) -> None:
    entries = list(churn.tiny_models(tmp_path))[:2]
    said: list[str] = []
    async with solo.serving(tmp_path, entries) as pool_worker:
        churned = await churn.churn(
            pool_worker, [model.ModelId(entry.name) for entry in entries], 200, said.append
        )
        assert pool_worker.host.residency.counts.loads == 200
        assert pool_worker.report().copies == ()
    assert (churned.loads, len(said)) == (200, 4)
