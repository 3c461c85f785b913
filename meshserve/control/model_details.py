"""What `GET /mesh/v1/models/NAME` tells of a model beyond the list: reasons and tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from meshserve.core.mesh import mesh_view
from meshserve.core.values import catalog, copy_details, model, reports

UNKNOWN = copy_details.CopyDetails()
DIGITS = 3


def details(
    view: mesh_view.MeshView,
    declared: catalog.ModelDeclared,
    copies: Mapping[str, reports.CopyReport],
    unix_s: float,
) -> dict[str, Any]:
    """Return the fields; `copies` have been asked for by worker, and it is `unix_s` now.

    What is of one copy is that of the one loaded last, or else of one that any worker knows.
    """
    known = [copy.details for copy in copies.values() if copy.details is not None]
    shown = min(known, key=_loaded_ago_s, default=UNKNOWN)
    failures: Counter[str] = Counter()
    for each_copy in known:
        failures.update(each_copy.failed_requests)
    return {
        **({"runtime": shown.runtime} if shown.runtime else {}),
        "inputs": [_tensor(tensor) for tensor in shown.inputs],
        "outputs": [_tensor(tensor) for tensor in shown.outputs],
        "footprint_from": _footprint_from(shown, declared),
        "last_load": _last_load(shown, unix_s),
        "last_departure": _last_departure(known, unix_s),
        "load_failure": _load_failure(known),
        "last_error": _last_error(known),
        "failed_requests": dict(failures),
        "slow": _slow(copies),
        "pinned_by": _pinned_by(view, declared.spec),
    }


def _loaded_ago_s(known: copy_details.CopyDetails) -> float:
    return float("inf") if known.loaded_ago_s is None else known.loaded_ago_s


def _tensor(tensor: model.TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _footprint_from(shown: copy_details.CopyDetails, declared: catalog.ModelDeclared) -> str:
    if shown.footprint_from:
        return shown.footprint_from
    return "measured by an earlier load" if declared.measured is not None else ""


def _last_load(shown: copy_details.CopyDetails, unix_s: float) -> dict[str, Any] | None:
    if shown.loaded_ago_s is None:
        return None
    return {"at_s": round(unix_s - shown.loaded_ago_s, DIGITS), "took_s": round(shown.load_s, 6)}


def _last_departure(known: list[copy_details.CopyDetails], unix_s: float) -> dict[str, Any] | None:
    left = [copy for copy in known if copy.departure_ago_s is not None]
    if not left:
        return None
    last = min(left, key=lambda copy: copy.departure_ago_s or 0.0)
    at_s = unix_s - (last.departure_ago_s or 0.0)
    return {
        "at_s": round(at_s, DIGITS),
        "kind": last.departure_kind,
        "reason": last.departure_reason,
    }


def _load_failure(known: list[copy_details.CopyDetails]) -> dict[str, Any] | None:
    failed = [copy for copy in known if copy.error]
    if not failed:
        return None
    worst = max(failed, key=lambda copy: copy.failures)
    return {
        "error": worst.error,
        "in_a_row": worst.failures,
        "next_try_in_s": round(worst.retry_s, DIGITS),
    }


def _last_error(known: list[copy_details.CopyDetails]) -> dict[str, Any] | None:
    last = max(known, key=lambda copy: copy.raised_ms, default=UNKNOWN)
    return {"at_s": last.raised_ms / 1000, "error": last.raised} if last.raised_ms else None


def _slow(copies: Mapping[str, reports.CopyReport]) -> list[str]:
    """Return the reasons of all copies, with their workers if there are several."""
    is_one = len(copies) == 1
    return [
        reason if is_one else f"{worker_id}: {reason}"
        for worker_id, copy in copies.items()
        for reason in (copy.details.slow if copy.details else ())
    ]


def _pinned_by(view: mesh_view.MeshView, spec: model.ModelSpec) -> str:
    """Return what pins the model, in words; empty if nothing does."""
    if not spec.pinned:
        return ""
    configured = next((other for other in view.config.models if other.id == spec.id), None)
    is_configured = configured is not None and configured.pinned
    return "`pinned: true` of the configuration" if is_configured else "the management API"
