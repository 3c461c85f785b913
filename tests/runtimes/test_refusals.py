from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.runtimes import refusals


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (IndexError("max(): Expected reduction dim 0 to have non-zero size"), "InvalidRequest"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "InvalidRequest"),
        (MemoryError(), "ModelRaised"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "ModelRaised"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "ModelRaised"),
        (OSError("no space left on device"), "ModelRaised"),
    ],
    ids=str,
)
def test_requests_are_at_fault_unless_the_machine_is(raised: Exception, kind: str) -> None:
    refusal = refusals.refusal(raised, "words")
    assert type(refusal) is getattr(errors, kind)
    assert refusal.message == "words"
