"""The metrics of a mesh, parsed as Prometheus parses them."""

from __future__ import annotations

from typing import Any

from prometheus_client import metrics_core, parser
from prometheus_client import samples as samples_

from tests.e2e import running


def families(mesh: running.Mesh) -> dict[str, metrics_core.Metric]:
    """Return all metric families by name."""
    return {
        family.name: family
        for family in parser.text_string_to_metric_families(
            mesh.http.get("/metrics").raise_for_status().text
        )
    }


def samples(mesh: running.Mesh, name: str, **labels: Any) -> list[samples_.Sample]:
    """Return the samples of a name with these labels."""
    everything = (sample for family in families(mesh).values() for sample in family.samples)
    return [
        sample
        for sample in everything
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def total(mesh: running.Mesh, name: str, **labels: Any) -> float:
    """Return the sum of the samples of a name with these labels."""
    return sum(sample.value for sample in samples(mesh, name, **labels))
