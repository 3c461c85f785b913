"""Run a mesh for one measurement: config, state and log in one folder, on a free port."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from bench import free_ports, served

COUNTERS = (
    "requests",
    "failures",
    "resident",
    "hits",
    "misses",
    "loads",
    "load_failures",
    "evictions",
    "restarts",
)
SETTLED_S, SETTLE_S_MAX = 1.5, 60
NO_VARIABLES: Mapping[str, str] = {}


@dataclass(frozen=True)
class Mesh:
    """A started mesh; it may not answer yet."""

    system: served.Served
    endpoint: str


def pool(workers: int, memory: str) -> dict[str, Any]:
    """Return the `pools` section with one pool."""
    return {"default": {"workers": workers, "memory": memory}}


def status(endpoint: str) -> dict[str, Any]:
    """Return what `meshserve status --json` shows."""
    answer = httpx.get(f"http://{endpoint}/mesh/v1/status", timeout=30).raise_for_status().json()
    return dict(answer)


def registered(endpoint: str) -> int:
    """Return how many models it serves; 0 while it does not answer."""
    try:
        return int(status(endpoint)["models"]["registered"])
    except httpx.HTTPError:
        return 0


def is_ready(endpoint: str) -> bool:
    """Tell whether the mesh says that it is ready."""
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{endpoint}/readyz", timeout=5).is_success
    return False


def totals(endpoint: str) -> dict[str, int]:
    """Return the counters of all workers together, as last reported."""
    workers = [worker for pool in status(endpoint)["pools"] for worker in pool["workers"]]
    return {key: sum(worker[key] for worker in workers) for key in COUNTERS}


def settled_totals(mesh: Mesh, requests: int = 0) -> dict[str, int]:
    """Return the counters once that many requests are in them and nothing changes any more."""
    mesh.system.wait_until(lambda: totals(mesh.endpoint)["requests"] >= requests, SETTLE_S_MAX)
    seen: dict[str, int] = {}
    while (now := totals(mesh.endpoint)) != seen:
        seen = now
        time.sleep(SETTLED_S)
    return seen


@contextlib.contextmanager
def up(
    folder: Path,
    pools: Mapping[str, Any],
    variables: Mapping[str, str] = NO_VARIABLES,
    *,
    native: str = "off",
    **sections: object,
) -> Iterator[Mesh]:
    """Run `meshserve up` with these sections and variables until the block ends.

    `native` is `gateway.native`.
    """
    endpoint, path = f"127.0.0.1:{free_ports.free_port()}", folder / "config.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "gateway": {"listen": endpoint, "file_roots": ["/"], "native": native},
                "state_dir": str(folder / "state"),
                "pools": dict(pools),
                **sections,
            }
        )
    )
    program, environment = (
        Path(sys.executable).with_name("meshserve"),
        {"MESHSERVE_HOME": str(folder / "state"), **variables},
    )
    with served.serving([program, "up", path], folder / "meshserve.log", **environment) as system:
        yield Mesh(system, endpoint)
