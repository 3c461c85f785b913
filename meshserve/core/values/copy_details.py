"""What one worker knows of one of its models, beyond what its reports tell of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from meshserve.core.values import mesh_events, model

NO_FAILURES: Mapping[str, int] = MappingProxyType({})


class CopyDetails(NamedTuple):
    """A model on one worker; `…_ago_s` are seconds before now, None for what did not happen.

    `footprint_from` says how the footprint is known. The copy last left memory, or was too big for
    it, as the `departure…` fields say. `error` is that of the last load if it failed, `failures`
    how many did in a row, `retry_s` the time until the next try. `raised` is what the model's code
    raised last, at the Unix time `raised_ms`. `failed_requests` are counts by class names of
    errors. `slow` has reasons why requests wait now, in words.
    """

    runtime: str = ""
    inputs: tuple[model.TensorSpec, ...] = ()
    outputs: tuple[model.TensorSpec, ...] = ()
    footprint_from: str = ""
    load_s: float = 0.0
    loaded_ago_s: float | None = None
    departure_kind: mesh_events.CopyKind | None = None
    departure_reason: str = ""
    departure_ago_s: float | None = None
    error: str = ""
    failures: int = 0
    retry_s: float = 0.0
    raised: str = ""
    raised_ms: int = 0
    failed_requests: Mapping[str, int] = NO_FAILURES
    slow: tuple[str, ...] = ()
