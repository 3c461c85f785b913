"""Build the wheel, install it without its dependencies into a fresh environment, and try it there.

The dependencies come from the environment that runs this program, by PYTHONPATH, so that nothing
is downloaded but the build's own tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
DIST = ROOT / "dist"
# Files that are no Python, by pattern: a wheel without them installs well and fails later.
DATA = ("py.typed", "**/*.pyi", "**/*.lua")
TRIES = (
    ("--version",),
    ("--help",),
    ("schema",),
    ("config", "check", str(ROOT / "configs" / "llm.yaml")),
)


def build(folder: Path) -> Path:
    """Build the wheel into `folder` and return its path."""
    # setuptools packs whatever an earlier build left there, deleted modules too.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    _pip("wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("meshserve-*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Install the wheel alone into a new environment in `folder`, and return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    _pip("--python", python, "install", "--no-deps", wheel)
    return python


def _pip(*arguments: str | Path) -> None:
    # With PYTHONPATH, pip would take this repository for an installed meshserve.
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    subprocess.run(command, check=True, env=variables, cwd=ROOT)


def missing_data(package: Path) -> list[str]:
    """Return the patterns of DATA that the source tree has and the installed package lacks."""
    source = ROOT / "meshserve"
    return [
        pattern
        for pattern in DATA
        if len(list(package.glob(pattern))) != len(list(source.glob(pattern)))
    ]


def check(python: Path, scratch: Path) -> str:
    """Try the installed package from the folder `scratch`; return what is wrong, or nothing."""
    variables = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    where = "import meshserve, pathlib; print(pathlib.Path(meshserve.__file__).parent)"
    # `-P` keeps the current folder out of the path.
    asked = subprocess.run(
        [python, "-P", "-c", where], env=variables, cwd=scratch, check=True, stdout=subprocess.PIPE
    )
    package = Path(asked.stdout.decode().strip())
    if scratch.resolve() not in package.resolve().parents:
        return f"not the wheel's package: {package}"
    if lacking := missing_data(package):
        return f"not in the wheel: {', '.join(lacking)}"
    for arguments in TRIES:
        command = [python.with_name("meshserve"), *arguments]
        done = subprocess.run(
            command, env=variables, cwd=scratch, check=False, capture_output=True, text=True
        )
        if done.returncode:
            return f"meshserve {' '.join(arguments)}: {done.stdout}{done.stderr}"
    return ""


def main() -> int:
    """Build, install, try; 1 if something is wrong, else 0 with the wheel in dist/."""
    with tempfile.TemporaryDirectory(prefix="wheel-") as scratch:
        wheel = build(Path(scratch))
        failure = check(install(wheel, Path(scratch) / "venv"), Path(scratch))
        if not failure:
            DIST.mkdir(exist_ok=True)
            print(f"wrote {shutil.copy(wheel, DIST)}")
        else:
            print(failure)
    return int(bool(failure))


if __name__ == "__main__":
    sys.exit(main())
