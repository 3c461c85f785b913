"""What a process of a mesh has imported once it can build its part."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("grpc", "httpx", "onnxruntime", "pydantic", "ray", "sqlalchemy", "starlette", "torch")


def imported_by(module: str) -> set[str]:
    """Return which large libraries a fresh process has with the module."""
    words = f"import sys, {module}; print(*sys.modules)"
    names = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=True
    ).stdout.split()
    return set(HEAVY) & set(names)
