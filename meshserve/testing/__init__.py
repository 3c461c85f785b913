"""Fakes that pass the same contract tests as what they stand for, and the suite for runtimes.

For tests only: nothing that serves imports this folder.
"""

from __future__ import annotations

from meshserve.testing.runtime_suite import artifact_at, check_runtime

__all__ = ["artifact_at", "check_runtime"]
