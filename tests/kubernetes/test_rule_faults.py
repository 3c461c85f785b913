from __future__ import annotations

import pytest

from meshserve.kubernetes import rule_faults


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2.60.0", (2, 60, 0)),
        ("v2.52", (2, 52)),
        ("2.52.0-rc1", (2, 52, 0)),
        ("2.60.0+cpu", (2, 60, 0)),
        ("nightly", None),
        ("2", None),
        (None, None),
        ("", None),
    ],
)
def test_a_version_is_its_numbers(text: str | None, numbers: tuple[int, ...] | None) -> None:
    assert rule_faults.version(text) == numbers


def test_a_container_of_a_group_is_its_first() -> None:
    containers = [{"name": "a", "env": [{"name": "B", "value": "1"}, {"name": "C"}]}, {"name": "d"}]
    group = {"template": {"spec": {"containers": containers}}}
    assert rule_faults.variables(rule_faults.ray_container(group)) == {"B": "1", "C": None}
    assert rule_faults.ray_container({}) == {}
    assert rule_faults.pod_spec({"template": []}) == {}


def test_wrong_types_are_empty() -> None:
    assert rule_faults.mapping([1]) == {}
    assert rule_faults.entries({"a": 1}) == []
    assert rule_faults.entries([1, {"a": 1}]) == [{"a": 1}]


def test_a_fault_reads_as_a_sentence() -> None:
    fault = rule_faults.RuleFault("rule", "spec.a", "a is wrong")
    assert str(fault) == "a is wrong (KubeRay's rule rule, field spec.a)"
