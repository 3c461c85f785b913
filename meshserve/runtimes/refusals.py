"""Whose fault it is when a library's program fails with a request.

A program of operators or a fitted estimator has no files, no network and no clock: what it raises
depends on the request. So it refuses the request, in its own words. Not so a user's own code.
"""

from __future__ import annotations

from meshserve import errors

_MACHINE = (
    *("allocate", "bad_alloc", "bad allocation", "out of memory", "not enough memory"),
    *("CUDA", "cuDNN", "CUBLAS"),
)
"""Parts of messages that tell of the machine, not of the request."""


def refusal(error: BaseException, words: str) -> errors.MeshError:
    """Return what a caller is told of an error, in these words.

    That is InvalidRequest, or ModelRaised where memory or a device is at fault.
    """
    is_machine = isinstance(error, (MemoryError, OSError)) or any(
        part in errors.text_of(error) for part in _MACHINE
    )
    return (errors.ModelRaised if is_machine else errors.InvalidRequest)(words)
