"""KubeRay's rules of `gated_rules`: what each takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import gated_rules
from tests.kubernetes import rule_cases

Json = dict[str, Any]


@pytest.mark.parametrize(("rule", "taken", "refused"), rule_cases.cases("GATED"))
def test_a_rule_takes_one_cluster_and_refuses_another(
    rule: str, taken: Json, refused: Json
) -> None:
    assert rule not in found(taken)
    assert rule in found(refused)


def found(manifest: Json, gates: frozenset[str] = rule_cases.ALL_GATES) -> set[str]:
    spec = manifest["spec"]
    faults = [*gated_rules.auth_faults(spec, "spec"), *gated_rules.faults(spec, "spec", gates)]
    return {fault.rule for fault in faults}


@pytest.mark.parametrize("manifest", rule_cases.GATED)
def test_what_needs_a_gate_is_refused_without_it(manifest: Json) -> None:
    assert "feature-gate" in found(manifest, frozenset())
    assert found(manifest) == set()
