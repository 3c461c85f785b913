"""The file that keeps the totals of models' figures while no controller runs.

What `/metrics` shows was written before: a later controller never shows less. Losing the file is no
harm, since all totals then begin at zero, which Prometheus takes for a restart.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import orjson

from meshserve.core.mesh import model_totals
from meshserve.core.values import model, model_figures

logger = logging.getLogger(__name__)

NAME = "model-figures.json"


class FiguresFile:
    """The file below a folder; other versions of meshserve may have written it."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / NAME
        self._written = b""

    def read(self) -> model_totals.SavedTotals:
        """Return the totals, or none if the file is missing or can't be understood."""
        try:
            return _parse(orjson.loads(self._path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("%s can't be read; the figures of models begin anew: %s", NAME, error)
        return model_totals.SavedTotals()

    def write(self, saved: model_totals.SavedTotals) -> None:
        """Replace the file as a whole if anything was counted since."""
        text = orjson.dumps(_document(saved))
        if text == self._written:
            return
        draft = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(text)
            draft.replace(self._path)
        except OSError as error:
            # Figures are shown all the same: a full disk is seen by them.
            logger.warning("the figures of models can't be kept: %s", error)
        else:
            self._written = text


def _document(saved: model_totals.SavedTotals) -> dict[str, Any]:
    return {
        "bounds": model_figures.LATENCY_BOUNDS_S,
        "batches": saved.batches,
        "rest": _as_json(saved.rest),
        "shown": [[*id_, _as_json(figures)] for id_, figures in saved.shown.items()],
        "kept": [[*id_, _as_json(figures)] for id_, figures in saved.kept.items()],
    }


def _as_json(figures: model_figures.ModelFigures) -> dict[str, Any]:
    # A key of JSON is a text.
    failures = [[code, count] for code, count in figures.failures.items()]
    return dataclasses.asdict(figures) | {"failures": failures}


def _parse(document: dict[str, Any]) -> model_totals.SavedTotals:
    """Return the totals in the document. Raises KeyError, TypeError or ValueError."""
    if tuple(document["bounds"]) != model_figures.LATENCY_BOUNDS_S:
        raise ValueError("its histograms have other bounds")
    return model_totals.SavedTotals(
        {worker: (process, number) for worker, (process, number) in document["batches"].items()},
        _figures(document["rest"]),
        *(
            {model.ModelId(name, version): _figures(one) for name, version, one in document[part]}
            for part in ("shown", "kept")
        ),
    )


def _figures(content: dict[str, Any]) -> model_figures.ModelFigures:
    return model_figures.ModelFigures(**content | {"failures": dict(content["failures"])})
