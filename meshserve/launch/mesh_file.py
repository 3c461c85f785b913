"""`mesh.json` in the state directory: how later commands find a mesh that runs on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from meshserve.client import admin

NAME = "mesh.json"


class MeshFile(NamedTuple):
    """The content of the file.

    `pid` 0 means that no process of this machine holds the mesh. `mesh_id` is that of its registry.
    `address` is that of the Ray cluster that it joined, where it goes on without such a process.
    """

    endpoint: str
    pid: int = 0
    config: str = ""
    mesh_id: str = ""
    address: str = ""


def logs_dir(state_dir: Path) -> Path:
    """Return the folder of the logs of the mesh's processes."""
    return state_dir / "logs"


def write(state_dir: Path, mesh: MeshFile) -> None:
    """Write the file; a concurrent reader sees the old content or the new one."""
    path = state_dir / NAME
    # Beside the file, because only within one file system a file is replaced at once.
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps(mesh._asdict()))
    scratch.replace(path)


def read(state_dir: Path) -> MeshFile | None:
    """Return the file's content, or None if it does not exist or cannot be read."""
    try:
        return MeshFile(**json.loads((state_dir / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def move(state_dir: Path, endpoint: str) -> None:
    """Note another endpoint of the mesh in the file, if it exists."""
    mesh = read(state_dir)
    if mesh is not None and mesh.endpoint != endpoint:
        write(state_dir, mesh._replace(endpoint=endpoint))


def remove(state_dir: Path) -> None:
    """Remove the file, if it exists."""
    (state_dir / NAME).unlink(missing_ok=True)


def running_endpoint(state_dir: Path) -> str | None:
    """Return the endpoint of the mesh started with this state directory, if it answers."""
    mesh = read(state_dir)
    if mesh is None:
        return None
    with admin.AdminClient(mesh.endpoint) as client:
        return mesh.endpoint if client.is_answering() else None
