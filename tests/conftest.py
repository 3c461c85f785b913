"""What holds for every test."""

from __future__ import annotations

import logging
import os
import signal

import hypothesis
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every program that is started from here, where some are tested with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What CI says of a commit must not depend on chance; new examples are looked for wherever else the tests run.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _quiet_again():
    """What a test has built may have told the package where to log, and what: the next one finds it as it was."""
    ours = logging.getLogger("meshserve")
    level, handlers, propagates = ours.level, ours.handlers[:], ours.propagate
    yield
    ours.setLevel(level)
    ours.propagate = propagates
    for handler in set(ours.handlers).difference(handlers):
        ours.removeHandler(handler)
        handler.close()
