"""KubeRay's rules of `gcs_rules`: what each takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import gcs_rules
from tests.kubernetes import rule_cases

Json = dict[str, Any]


@pytest.mark.parametrize(("rule", "taken", "refused"), rule_cases.cases("GCS"))
def test_a_rule_takes_one_cluster_and_refuses_another(
    rule: str, taken: Json, refused: Json
) -> None:
    assert rule not in found(taken)
    assert rule in found(refused)


def found(manifest: Json, gates: frozenset[str] = rule_cases.ALL_GATES) -> set[str]:
    annotations = manifest["metadata"].get("annotations", {})
    faults = gcs_rules.faults(manifest["spec"], "spec", annotations, gates)
    return {fault.rule for fault in faults}


def test_the_embedded_store_needs_its_gate() -> None:
    manifest = rule_cases.cluster(rule_cases.embedded())
    assert found(manifest, frozenset()) == {"rocksdb-gate"}
    assert found(manifest) == set()
