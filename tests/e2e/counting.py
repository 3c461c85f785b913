"""The metrics of a mesh, parsed as Prometheus parses them."""

from __future__ import annotations

from prometheus_client import parser


def families(mesh):
    """Return all metric families by name."""
    return {
        family.name: family
        for family in parser.text_string_to_metric_families(
            mesh.http.get("/metrics").raise_for_status().text
        )
    }


def samples(mesh, name, **labels):
    """Return the samples of a name with these labels."""
    everything = (sample for family in families(mesh).values() for sample in family.samples)
    return [
        sample
        for sample in everything
        if sample.name == name and labels.items() <= sample.labels.items()
    ]


def total(mesh, name, **labels):
    """Return the sum of the samples of a name with these labels."""
    return sum(sample.value for sample in samples(mesh, name, **labels))
