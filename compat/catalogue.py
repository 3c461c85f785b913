"""All cases, in the order of the table."""

from __future__ import annotations

from compat import (
    cases,
    kserve_cases,
    llm_cases,
    mlserver_cases,
    modelmesh_cases,
    refusals,
    tf_serving_cases,
    triton_classes,
    triton_control,
    triton_examples,
    triton_infer,
    triton_wire,
    wire_cases,
)

MODULES = (
    triton_infer,
    triton_classes,
    triton_examples,
    triton_wire,
    triton_control,
    mlserver_cases,
    kserve_cases,
    modelmesh_cases,
    tf_serving_cases,
    llm_cases,
    wire_cases,
    refusals,
)


def all_cases() -> list[cases.Case]:
    """Return every case."""
    return [case for module in MODULES for case in cases.in_module(module)]


def quick_cases() -> list[cases.Case]:
    """Return the cases that need no other environment."""
    return [case for case in all_cases() if not case.needs]
