from __future__ import annotations

from prometheus_client import parser

from meshserve.control.api import mesh_metrics
from meshserve.testing import fake_replicas
from tests.control import llms


async def test_states_waiting_requests_and_starts_are_told(fresh):
    await fresh.start(llms.CONFIG)
    await fresh.until(lambda: fresh.mesh.llms.llms["always"].state == "ready")
    text = mesh_metrics.MeshMetrics(fresh.plane.controller).text().decode()
    found = [
        each for family in parser.text_string_to_metric_families(text) for each in family.samples
    ]
    samples = {(each.name, *each.labels.values()): each.value for each in found}
    assert samples["meshserve_llm_state", "always", "ready"] == 1
    assert samples["meshserve_llm_state", "rare", "ready"] == 0
    assert samples["meshserve_llm_state", "rare", "idle"] == 1
    assert samples["meshserve_llm_replicas", "always", "ready"] == 1
    assert samples["meshserve_llm_held_requests", "rare"] == 0
    assert samples["meshserve_llm_turned_away_total", "rare"] == 0
    assert samples["meshserve_llm_starts_total", "always"] == 1
    assert samples["meshserve_llm_start_seconds_sum", "always"] == fake_replicas.TOOK_S
    assert samples["meshserve_llm_wakes_total", "always"] == 0
