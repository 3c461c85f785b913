"""The copies of one worker that run in processes of their own: their start, memory and deaths."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping

from meshserve.core.memory import copies
from meshserve.core.values import process_death
from meshserve.worker.models import (
    isolated_model,
    isolated_process,
    loader,
    memory_hogs,
    process_confinement,
    process_launcher,
)

NICENESS = 5
"""Added to the niceness of models' processes, so that a model that spins leaves the worker, which
answers for all others, the processor."""

DATA_EXTRA_BYTES = 1 << 30
"""What a process may reserve beyond the worker's budget: stacks of threads and gaps of the heap
count as taken, although most of their pages are never used."""

LIBRARY_SHARE_MAX = 0.25
"""Part of the worker's budget up to which a library is imported for all processes: it stays there
for good, while one that a model's process imports leaves with the model."""


MakeLauncher = Callable[
    [Callable[[isolated_process.IsolatedProcess], None], int], process_launcher.ProcessLauncher
]
"""Makes what starts processes, from what is told of each death and a limit of libraries' bytes."""


class IsolatedCopies:
    """Starts and watches the processes of one worker's copies.

    `on_death` is called on the event loop with the key of a copy in memory whose process has ended.
    """

    def __init__(
        self,
        budget_bytes: int,
        on_death: Callable[[str, process_death.ProcessDeath], None],
        make_launcher: MakeLauncher = process_launcher.ProcessLauncher,
    ) -> None:
        self._budget_bytes = budget_bytes
        self._on_death = on_death
        self._make_launcher = make_launcher
        self._launcher: process_launcher.ProcessLauncher | None = None
        self._serving: dict[str, isolated_process.IsolatedProcess] = {}
        self._loop = asyncio.get_running_loop()

    def isolate(self, recipe: loader.LoadRecipe, device: str) -> loader.LoadRecipe:
        """Return the recipe of a copy that loads in a process, if it says so, else the same."""
        if not recipe.is_isolated:
            return recipe
        # Only now: without such a copy a pool needs neither its thread nor a fork server.
        if self._launcher is None:
            self._launcher = self._make_launcher(
                self._tell_death, int(self._budget_bytes * LIBRARY_SHARE_MAX)
            )
        # A GPU's driver reserves address space for all of its memory, which a limit would refuse.
        data_bytes_max = self._budget_bytes + DATA_EXTRA_BYTES if device == "cpu" else 0
        runtime = isolated_model.IsolatedRuntime(
            recipe.runtime,
            self._launcher,
            recipe.key,
            process_confinement.ProcessLimits(data_bytes_max, NICENESS),
            process_bytes=0 if loader.tried_key(recipe.key) else isolated_model.PROCESS_BYTES,
        )
        return dataclasses.replace(recipe, runtime=runtime)

    # Deaths

    def begin(self, key: str, process: isolated_process.IsolatedProcess | None) -> None:
        """Watch the process of a copy that has come into memory; None runs in the worker."""
        if process is not None:
            self._serving[key] = process
            # It may have ended before it was watched, and `_note_death` has passed it over then.
            if process.death is not None:
                self._note_death(process)

    def end(self, key: str) -> None:
        """Watch the copy's process no longer: the copy is being freed."""
        self._serving.pop(key, None)

    def _tell_death(self, process: isolated_process.IsolatedProcess) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._note_death, process)

    def _note_death(self, process: isolated_process.IsolatedProcess) -> None:
        # A copy that is loaded anew has another process than the one that ended.
        if self._serving.get(process.key) is process and process.death is not None:
            del self._serving[process.key]
            self._on_death(process.key, process.death)

    # Memory

    def measure(self, records: Mapping[str, copies.Copy], worker_bytes: int) -> int:
        """Return the memory of all processes that the worker has started for its models.

        What grew far beyond its footprint is killed, if memory is short for it. `worker_bytes` are
        those of the worker's own process. Processes of trials are left out of the result, and not
        booked either: a suspect may be innocent, and must be answered also where the budget has no
        room for a process.
        """
        if self._launcher is None:
            return 0
        # Read once, as each is a file of /proc that the event loop waits for. The dictionary is
        # copied, because the launcher's thread changes it meanwhile.
        taken_bytes = {
            process: process.memory_bytes() for process in tuple(self._launcher.processes.values())
        }
        server_bytes = self._launcher.server_bytes()
        if worker_bytes + server_bytes + sum(taken_bytes.values()) > self._budget_bytes:
            # A trial is booked without its process and library, which alone may take more than the
            # growth that is allowed: an innocent model would be convicted.
            booked_bytes = {
                process: max(process.footprint_bytes, records[key].booked.host_bytes)
                for key, process in self._serving.items()
                if key in records
            }
            memory_hogs.stop(taken_bytes, booked_bytes, self._budget_bytes)
        return server_bytes + sum(
            size_bytes
            for process, size_bytes in taken_bytes.items()
            if not loader.tried_key(process.key)
        )

    async def close(self, loaded: Iterable[loader.LoadedCopy]) -> None:
        """Close these copies, those in processes side by side, then kill every process."""
        self._serving.clear()
        closing = []
        for one in loaded:
            if one.process is None:
                one.loaded.close()
            else:
                closing.append(asyncio.to_thread(one.loaded.close))
        await asyncio.gather(*closing, return_exceptions=True)
        if self._launcher is not None:
            await asyncio.to_thread(self._launcher.close)
