"""KubeRay's rules of `autoscaler_rules`: what each takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import autoscaler_rules
from tests.kubernetes import rule_cases

Json = dict[str, Any]


@pytest.mark.parametrize(("rule", "taken", "refused"), rule_cases.cases("AUTOSCALER"))
def test_a_rule_takes_one_cluster_and_refuses_another(
    rule: str, taken: Json, refused: Json
) -> None:
    assert rule not in found(taken)
    assert rule in found(refused)


def found(manifest: Json) -> set[str]:
    return {fault.rule for fault in autoscaler_rules.faults(manifest["spec"], "spec")}


def test_a_fault_names_the_group() -> None:
    manifest = rule_cases.cluster(rule_cases.scaling() | rule_cases.group(suspend=True))
    (fault,) = autoscaler_rules.faults(manifest["spec"], "spec")
    assert fault.field == "spec.workerGroupSpecs[0].suspend"
