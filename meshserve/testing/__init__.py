"""Fakes that pass the contract tests of the real parts, suites for plug-ins, a mesh for tests.

They are for tests only: the serving code does not import this package.
"""

from __future__ import annotations

from meshserve.testing.engine_suite import check_engine
from meshserve.testing.runtime_suite import artifact_at, check_runtime
from meshserve.testing.started_mesh import StartedMesh, mesh, mesh_fixture

__all__ = [
    "StartedMesh",
    "artifact_at",
    "check_engine",
    "check_runtime",
    "mesh",
    "mesh_fixture",
]
