"""What the mesh holds of the machine: processes, memory, descriptors, threads, files."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from pathlib import Path

import psutil

from tests.chaos import world
from tests.e2e import running

SHARED_MEMORY = Path("/dev/shm")
PRIVATE_MORE_BYTES = 80 << 20
"""Growth of a process that is no leak: what an allocator keeps of a run's requests of megabytes."""
DESCRIPTORS_MORE, THREADS_MORE = 200, 24
"""Envoy keeps idle connections to workers for minutes, as many as requests ran side by side; Ray's
log monitor keeps the files of ended processes open."""
# A worker starts a fork server with its first isolated model, and keeps it.
MODELS_PROCESS = "model's process"
PROCESSES_MAX = {"fork server": world.WORKERS, MODELS_PROCESS: 0}
"""Processes after all models have been unloaded."""
KEPT = {"mesh.lock", "cache", "logs", "registry.db", "up.out", "config.yaml"}
"""What stays in the state directory after the end: docs/operations.md says what for."""


@dataclasses.dataclass
class Holding:
    """What all processes of one kind hold together; the memory is of the biggest."""

    processes: int = 0
    private_bytes: int = 0
    descriptors: int = 0
    threads: int = 0


def shared_memory(mesh: running.Mesh) -> set[str]:
    """Return the names in shared memory that the mesh's processes have mapped.

    Other programs of the machine have theirs there too.
    """
    names = set()
    for pid in mesh.living():
        with contextlib.suppress(OSError):
            maps = Path(f"/proc/{pid}/maps").read_text()
            names.update(re.findall(rf"{SHARED_MEMORY}/([^/\s]+)", maps))
    return names


def take(mesh: running.Mesh) -> dict[str, Holding]:
    """Return what the mesh's processes hold, by their kind."""
    holdings: dict[str, Holding] = {}
    for pid in mesh.living():
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            holding = holdings.setdefault(_kind(process), Holding())
            memory = process.memory_info()
            holding.processes += 1
            holding.private_bytes = max(holding.private_bytes, memory.rss - memory.shared)
            holding.descriptors = max(holding.descriptors, process.num_fds())
            holding.threads = max(holding.threads, process.num_threads())
    return holdings


def _kind(process: psutil.Process) -> str:
    words = process.cmdline()
    if not words:
        return "zombie"
    if "fork_server" in " ".join(words):
        parent = process.parent()
        is_model = parent is not None and "fork_server" in " ".join(parent.cmdline())
        return MODELS_PROCESS if is_model else "fork server"
    for word in words:
        name = Path(word).name
        if not name.startswith(("python", "-")):
            return name[:40]
    return words[0][:40]


def has_model_processes(mesh: running.Mesh) -> bool:
    """Return whether any model runs in a process of its own."""
    return MODELS_PROCESS in take(mesh)


def grown(before: dict[str, Holding], after: dict[str, Holding]) -> list[str]:
    """Return what is more than it was, beyond what is explained."""
    leaks = []
    for kind, holding in after.items():
        was = before.get(kind, Holding(descriptors=1 << 20, threads=1 << 20))
        processes_max = PROCESSES_MAX.get(kind, was.processes)
        if holding.processes > processes_max:
            leaks.append(f"{holding.processes} processes {kind}, not {processes_max}")
        bound = max(was.private_bytes + PRIVATE_MORE_BYTES, _bound(kind))
        if holding.private_bytes > bound:
            leaks.append(f"{kind}: {holding.private_bytes >> 20} MiB, not {bound >> 20}")
        if holding.descriptors > was.descriptors + DESCRIPTORS_MORE:
            leaks.append(f"{kind}: {holding.descriptors} descriptors, not {was.descriptors}")
        if holding.threads > was.threads + THREADS_MORE:
            leaks.append(f"{kind}: {holding.threads} threads, not {was.threads}")
    return leaks


def _bound(kind: str) -> int:
    """Return what a worker may take by its budget, a tenth more for what was not measured yet."""
    return int(world.WORKER_BYTES * 1.1) if "Worker" in kind else 0


def compared(before: dict[str, Holding], after: dict[str, Holding]) -> list[str]:
    """Return a line for each kind of process, with its figures before and after."""
    return [
        f"{kind}: {_figures(before.get(kind, Holding()))} -> {_figures(holding)}"
        for kind, holding in sorted(after.items())
    ]


def _figures(holding: Holding) -> str:
    return (
        f"{holding.processes} × {holding.private_bytes >> 20} MiB, {holding.descriptors} fds, "
        f"{holding.threads} threads"
    )


def left_behind(mesh: running.Mesh, shared: set[str], temporary: Path) -> list[str]:
    """Return what is left of a mesh that has ended, whose processes had mapped `shared`."""
    left = [f"process {pid}: {_command(pid)}" for pid in sorted(mesh.living())]
    left += [
        f"{SHARED_MEMORY / name}" for name in sorted(shared) if (SHARED_MEMORY / name).exists()
    ]
    left += [f"temporary {path.name}" for path in temporary.iterdir()]
    left += [f"state {path.name}" for path in mesh.home.iterdir() if path.name not in KEPT]
    unfinished = (mesh.home / "cache").glob("slots/*")
    return left + [f"cache {path.name}" for path in unfinished]


def _command(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline())[:100]
    return "ended"
