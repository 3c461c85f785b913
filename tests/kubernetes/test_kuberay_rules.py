"""Each rule of KubeRay's operator: what it takes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from meshserve.kubernetes import kuberay_rules
from tests.kubernetes import rule_cases

Json = dict[str, Any]


def found(manifest: Json, gates: frozenset[str] = rule_cases.ALL_GATES) -> set[str]:
    return {fault.rule for fault in kuberay_rules.faults(manifest, gates)}


@pytest.mark.parametrize(("rule", "taken", "refused"), rule_cases.cases())
def test_a_rule_takes_one_cluster_and_refuses_another(
    rule: str, taken: Json, refused: Json
) -> None:
    assert rule not in found(taken)
    assert rule in found(refused)


def test_every_rule_of_the_table_is_checked_through_the_whole_manifest() -> None:
    for rule, pairs in rule_cases.CLUSTER_RULES.items():
        for taken, refused in pairs:
            assert rule not in found(taken)
            assert rule in found(refused)


def test_a_fault_names_rule_field_and_what_would_be_right() -> None:
    (fault,) = kuberay_rules.faults(
        rule_cases.cluster(rule_cases.group(minReplicas=3, maxReplicas=2)), frozenset()
    )
    assert str(fault) == (
        "minReplicas is 3, but maxReplicas only 2 "
        "(KubeRay's rule replicas-order, field spec.workerGroupSpecs[0].minReplicas)"
    )


@pytest.mark.parametrize("value", [None, [], "text", 1, [1], {"a": 1}, [[]]])
def test_values_of_a_wrong_type_are_left_to_the_schemas(value: Any) -> None:
    spec = rule_cases.cluster()["spec"]
    for key in [*spec, "gcsFaultToleranceOptions", "networkPolicy", "tlsOptions"]:
        list(
            kuberay_rules.faults(
                {"metadata": {"name": "a"}, "spec": {**spec, key: value}}, rule_cases.ALL_GATES
            )
        )
    list(kuberay_rules.faults({"metadata": value, "spec": value}, rule_cases.ALL_GATES))
