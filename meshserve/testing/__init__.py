"""Fakes that pass the same contract tests as what they stand for, and suites for plug-ins.

For tests only: nothing that serves imports this folder.
"""

from __future__ import annotations

from meshserve.testing.engine_suite import check_engine
from meshserve.testing.runtime_suite import artifact_at, check_runtime

__all__ = ["artifact_at", "check_engine", "check_runtime"]
