"""Fakes that pass the contract tests of the real parts, and conformance suites for plug-ins.

They are for tests only: the serving code does not import this package.
"""

from __future__ import annotations

from meshserve.testing.engine_suite import check_engine
from meshserve.testing.runtime_suite import artifact_at, check_runtime

__all__ = ["artifact_at", "check_engine", "check_runtime"]
