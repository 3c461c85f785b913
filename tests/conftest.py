"""Settings and fixtures of every test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every program that a test starts, while
    # some tests end programs with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Processes of a mesh import nothing from the current folder, but the tests' modules by this.
ROOT = str(Path(__file__).parent.parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))

# No deadline for an example: a busy machine is no fault.
hypothesis.settings.register_profile("new examples", deadline=None)
# What CI says of a commit must not depend on chance; elsewhere new examples are searched for.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
# `make test-core`: few examples, the same ones each time, in seconds.
hypothesis.settings.register_profile(
    "quick",
    max_examples=15,
    stateful_step_count=25,
    derandomize=True,
    database=None,
    deadline=None,
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "new examples")
)


# Seconds for tests of real processes that have no timeout of their own; all others have the short
# one of pyproject.toml.
PROCESS_TIMEOUT_S = 120


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real processes, and slow ones, the time that they need."""
    for item in items:
        is_long = item.get_closest_marker("edge") or item.get_closest_marker("slow")
        if is_long and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PROCESS_TIMEOUT_S))


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a test did to the package's logger: level, handlers, propagation."""
    ours = logging.getLogger("meshserve")
    level, handlers, propagates = ours.level, ours.handlers[:], ours.propagate
    yield
    ours.setLevel(level)
    ours.propagate = propagates
    for handler in set(ours.handlers).difference(handlers):
        ours.removeHandler(handler)
        handler.close()
