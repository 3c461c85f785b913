from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import parser

from meshserve.control import figures_file
from meshserve.control.api import mesh_metrics
from meshserve.testing import fake_replicas
from tests.control import conftest, llms


def text_of(stage: conftest.Stage) -> bytes:
    figures = figures_file.FiguresFile(stage.state_dir)
    return mesh_metrics.MeshMetrics(stage.plane.controller, figures).text()


@pytest.fixture
def samples(stage: conftest.Stage) -> Callable[..., Any]:
    def read() -> dict[tuple[str, ...], float]:
        text = text_of(stage).decode()
        families = parser.text_string_to_metric_families(text)
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    return read


async def test_models_aliases_workers_and_events_are_counted(samples: Callable[..., Any]) -> None:
    assert samples()["meshserve_models_registered",] == 2
    assert samples()["meshserve_aliases",] == 1
    assert samples()["meshserve_workers", "default", "ready"] == 2
    assert samples()["meshserve_workers", "gpu", "lost"] == 0
    assert samples()["meshserve_controller_events_total",] > 0
    assert samples()["meshserve_controller_failures_total",] == 0


async def test_restarts_are_counted(stage: conftest.Stage, samples: Callable[..., Any]) -> None:
    stage.cluster.kill("gpu-0")
    await stage.until(lambda: stage.mesh.workers.records["gpu-0"].restarts)
    assert samples()["meshserve_worker_restarts_total", "gpu-0"] == 1
    await stage.plane.close()
    await stage.start(restarts=3)
    assert samples()["meshserve_controller_restarts_total",] == 3


async def test_llms_have_states_held_requests_and_starts(fresh: conftest.Stage) -> None:
    await fresh.start(llms.CONFIG)
    await fresh.until(lambda: fresh.mesh.llms.llms["always"].state == "ready")
    text = text_of(fresh).decode()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["meshserve_llm_state", "always", "ready"] == 1
    assert samples["meshserve_llm_state", "rare", "ready"] == 0
    assert samples["meshserve_llm_state", "rare", "idle"] == 1
    assert samples["meshserve_llm_replicas", "always", "ready"] == 1
    assert samples["meshserve_llm_held_requests", "rare"] == 0
    assert samples["meshserve_llm_turned_away_total", "rare"] == 0
    assert samples["meshserve_llm_starts_total", "always"] == 1
    assert samples["meshserve_llm_start_seconds_sum", "always"] == fake_replicas.TOOK_S
    assert samples["meshserve_llm_wakes_total", "always"] == 0


def test_each_metric_of_the_controller_is_documented(stage: conftest.Stage) -> None:
    document = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    names = re.findall(r"^# TYPE (\w+)", text_of(stage).decode(), re.MULTILINE)
    assert len(names) > 25
    assert [name for name in names if f"`{name}" not in document] == []
