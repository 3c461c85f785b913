from __future__ import annotations

import pytest
from prometheus_client import parser

from meshserve.control.api import mesh_metrics


@pytest.fixture
def samples(stage):
    def read():
        text = mesh_metrics.MeshMetrics(stage.plane.controller).text().decode()
        families = parser.text_string_to_metric_families(text)
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }

    return read


async def test_what_is_registered_and_runs_is_counted(samples):
    assert samples()["meshserve_models_registered",] == 2
    assert samples()["meshserve_aliases",] == 1
    assert samples()["meshserve_workers", "default", "ready"] == 2
    assert samples()["meshserve_workers", "gpu", "lost"] == 0
    assert samples()["meshserve_controller_events_total",] > 0


async def test_restarts_are_counted(stage, samples):
    stage.cluster.kill("gpu-0")
    await stage.until(lambda: stage.mesh.workers.records["gpu-0"].restarts)
    assert samples()["meshserve_worker_restarts_total", "gpu-0"] == 1
    await stage.plane.close()
    await stage.start(restarts=3)
    assert samples()["meshserve_controller_restarts_total",] == 3
