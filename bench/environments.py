"""Make a virtual environment for each peer when first needed, so that no packages meet."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".venv-peers"
INSTALL_S_MAX = 900


class NotInstalled(Exception):
    """The environment could not be made; the message says why."""


@dataclass(frozen=True)
class Environment:
    """The packages of one environment.

    `protos` are files of proto/ whose Python modules it has. `patch` is a module that it imports at
    each start.
    """

    name: str
    packages: tuple[str, ...]
    protos: tuple[str, ...] = ()
    patch: Path | None = None

    @property
    def folder(self) -> Path:
        """The environment's folder."""
        return FOLDER / self.name

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def generated(self) -> Path:
        """The folder of its generated modules."""
        return self.folder / "generated"

    def contents(self) -> str:
        """What it is made of: a change makes it anew."""
        return "\n".join(
            (*self.packages, *self.protos, self.patch.read_text() if self.patch else "")
        )


def make_environment(wanted: Environment) -> Path:
    """Return the environment's interpreter, made if need be. Raises NotInstalled."""
    made_of = wanted.folder / "made-of"
    if made_of.exists() and made_of.read_text() == wanted.contents():
        return wanted.python
    shutil.rmtree(wanted.folder, ignore_errors=True)
    try:
        _install(wanted)
    except BaseException:
        shutil.rmtree(wanted.folder, ignore_errors=True)
        raise
    made_of.write_text(wanted.contents())
    return wanted.python


def _install(wanted: Environment) -> None:
    wanted.folder.parent.mkdir(exist_ok=True)
    # Our own pip installs into it: a Python without ensurepip has none to give.
    _run([sys.executable, "-m", "venv", "--without-pip", wanted.folder])
    _run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            wanted.python,
            "install",
            "--quiet",
            *wanted.packages,
        ]
    )
    if wanted.patch:
        _patch(wanted, wanted.patch)
    if wanted.protos:
        _generate(wanted)


def _patch(wanted: Environment, source: Path) -> None:
    """Install the patch: `import` lines of a .pth file run at each start of the interpreter."""
    (site,) = wanted.folder.glob("lib/python*/site-packages")
    shutil.copyfile(source, site / source.name)
    (site / f"{source.stem}.pth").write_text(f"import {source.stem}\n")


def _generate(wanted: Environment) -> None:
    wanted.generated.mkdir()
    out = [f"--python_out={wanted.generated}", f"--grpc_python_out={wanted.generated}"]
    _run([wanted.python, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *out, *wanted.protos])


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(
            [str(word) for word in command],
            capture_output=True,
            text=True,
            timeout=INSTALL_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"it was not installed within {INSTALL_S_MAX} s") from None
    if done.returncode:
        lines = (
            done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        ).splitlines()
        raise NotInstalled(
            next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        )


MLSERVER = Environment("mlserver", ("mlserver==1.7.1", "onnxruntime>=1.22,<2"))
PYTRITON = Environment(
    "pytriton",
    ("nvidia-pytriton==0.7.0", "onnxruntime>=1.22,<2"),
    patch=Path(__file__).with_name("peers") / "pytriton_tracker_lock.py",
)
RAY_SERVE = Environment(
    "ray-serve",
    ("ray[serve-grpc]>=2.60,<2.61", "onnxruntime>=1.22,<2", "grpcio-tools"),
    ("inference.proto", "model_config.proto"),
)
