"""For which model and request code runs now, for the lines that it prints and logs.

A run is noted where a model's code is called, and described only if a line is written meanwhile.
"""

from __future__ import annotations

import contextvars
import sys
from typing import NamedTuple, Protocol

FRAMES_MAX = 40
"""Callers that are looked at for a model's module; a line of a deeper one has no model."""


class RunLabels(NamedTuple):
    """What a line of a log says of a run; what is not known is empty."""

    model: str = ""
    version: str = ""
    request_id: str = ""

    def labels(self) -> RunLabels:
        """Return these labels: they are a run that is described already."""
        return self


NO_RUN = RunLabels()


class LabelledRun(Protocol):
    """Something for which a model's code runs."""

    def labels(self) -> RunLabels:
        """Return what the lines of the run are marked with."""
        ...


_running: contextvars.ContextVar[LabelledRun | None] = contextvars.ContextVar(
    "running", default=None
)
# A context variable, because a model's coroutines run on a loop that begins them with a copy.
begin = _running.set
end = _running.reset

_packages: dict[str, RunLabels] = {}


def claim(package: str) -> None:
    """Note that the modules of this package belong to the model that is being loaded now.

    Threads that a model starts run outside of every run, and are known by their code alone.
    """
    _packages[package] = find()._replace(request_id="")


def disown(package: str) -> None:
    """Forget a package whose modules are gone."""
    _packages.pop(package, None)


def find() -> RunLabels:
    """Return what is known of the code that calls this; `NO_RUN` if it belongs to no model."""
    run = _running.get()
    if run is not None:
        return run.labels()
    return _labels_of_callers() if _packages else NO_RUN


def _labels_of_callers() -> RunLabels:
    frame = sys._getframe(1)  # noqa: SLF001 - as the logging module does, which has no other way
    for _ in range(FRAMES_MAX):
        package, _, _ = str(frame.f_globals.get("__name__", "")).partition(".")
        labels = _packages.get(package)
        if labels is not None:
            return labels
        if frame.f_back is None:
            break
        frame = frame.f_back
    return NO_RUN
