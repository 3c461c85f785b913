"""A mesh of its own for one measurement: its config, state and log in one folder, on a free port."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import served
import yaml


@dataclass(frozen=True)
class Mesh:
    """A started mesh; it may not answer yet."""

    system: served.Served
    endpoint: str


def pool(workers: int, memory: str) -> dict[str, Any]:
    """The `pools` section with one pool."""
    return {"default": {"workers": workers, "memory": memory}}


@contextlib.contextmanager
def up(folder: Path, pools: Mapping[str, Any], **sections: object) -> Iterator[Mesh]:
    """`meshserve up` with these sections of config.yaml, stopped at the end of the block."""
    endpoint, path = f"127.0.0.1:{served.free_port()}", folder / "config.yaml"
    path.write_text(yaml.safe_dump({"gateway": {"listen": endpoint}, "state_dir": str(folder / "state"), "pools": dict(pools), **sections}))
    program = Path(sys.executable).with_name("meshserve")
    with served.serving([program, "up", path], folder / "meshserve.log", MESHSERVE_HOME=str(folder / "state")) as system:
        yield Mesh(system, endpoint)
