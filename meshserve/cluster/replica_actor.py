"""The actor around one replica of an LLM. No request and no token passes through it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from meshserve import errors
from meshserve.cluster import actors, process_guard
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server

ReplicaMaker = Callable[
    [model.ServerAddress, llm_spec.LlmSpec, llm_spec.ExecutorBackend],
    Awaitable[llm_server.LlmServer],
]


class Started(NamedTuple):
    """Where a replica listens, and in which process."""

    endpoint: model.Endpoint
    pid: int


class ReplicaActor:
    """Holds one replica. What its process starts ends with it, in whatever way it ends."""

    def __init__(
        self,
        make: ReplicaMaker,
        address: model.ServerAddress,
        spec: llm_spec.LlmSpec,
        backend: llm_spec.ExecutorBackend,
    ) -> None:
        self._make = make
        self._address = dataclasses.replace(address, node=actors.node_id())
        self._spec = spec
        self._backend = backend
        self._server: llm_server.LlmServer | None = None
        self._endpoint: model.Endpoint | None = None
        self._is_asleep = False
        process_guard.watch_over_this_process()

    @property
    def _held(self) -> llm_server.LlmServer:
        if self._server is None or self._endpoint is None:
            raise errors.Unavailable(f"replica {self._address.id} is not started")
        return self._server

    @actors.told
    async def start(self, gpus: tuple[str, ...] = ()) -> Started:
        """Return once it has made a token. `gpus` are those that it may use beside what Ray gave it."""
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        actors.make_run_dir(self._address.run_dir)
        self._server = await self._make(self._address, self._spec, self._backend)
        self._endpoint = await self._server.start()
        return Started(self._endpoint, os.getpid())

    @actors.told
    async def living(self) -> llm_spec.LivingReplica:
        """What a controller that begins must know of it."""
        if self._endpoint is None:
            raise errors.Unavailable(f"replica {self._address.id} is not started")
        return llm_spec.LivingReplica(
            self._address.id, self._spec, self._endpoint, os.getpid(), self._is_asleep
        )

    @actors.told
    async def live(self) -> str:
        """Returns why the engine ended; whoever waits for it hears at once when the whole process ends."""
        return await self._held.wait_until_failed()

    @actors.told
    async def report(self) -> llm_spec.LlmReport:
        """How it is."""
        return self._held.report()

    @actors.told
    async def sleep(self, level: int) -> None:
        """Answer what was accepted, and sleep."""
        await self._held.sleep(level)
        self._is_asleep = True

    @actors.told
    async def wake(self) -> None:
        """Return once it has made a token again."""
        await self._held.wake()
        self._is_asleep = False

    @actors.told
    async def stop(self) -> None:
        """Answer what was accepted, and end. One whose engine does not run yet only ends."""
        if self._server is not None and self._endpoint is not None:
            await self._server.drain(actors.DRAIN_S)
            await self._server.stop()
