"""Each rule of KubeRay's operator for a RayService: what it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import service_rules
from tests.kubernetes import rule_cases, service_cases

Json = dict[str, Any]
CASES = [
    (rule, taken, refused)
    for rule, pairs in service_cases.SERVICE_RULES.items()
    for taken, refused in pairs
]


@pytest.mark.parametrize(("rule", "taken", "refused"), CASES)
def test_a_rule_takes_one_service_and_refuses_another(
    rule: str, taken: Json, refused: Json
) -> None:
    def found(manifest: Json) -> set[str]:
        return {fault.rule for fault in service_rules.faults(manifest, rule_cases.ALL_GATES)}

    assert rule not in found(taken)
    assert rule in found(refused)


def test_the_rules_of_a_cluster_hold_inside_a_service() -> None:
    manifest = service_cases.service({"rayClusterConfig": {"rayVersion": "2.50.0"}})
    (fault,) = service_rules.faults(manifest, frozenset())
    assert (fault.rule, fault.field) == ("token-version", "spec.rayClusterConfig.rayVersion")
