"""The actor that holds one replica of an LLM. No request and no token passes through it."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from meshserve import errors
from meshserve.cluster import actor_process, process_guard
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_server

ReplicaMaker = Callable[
    [model.ServerAddress, llm_spec.LlmSpec, llm_spec.ExecutorBackend],
    Awaitable[llm_server.LlmServer],
]


class ReplicaActor:
    """Passes the controller's calls on to one replica.

    Every process that the engine starts ends with the actor, however it ends.
    Every method but `start` and `stop` raises Unavailable before the replica has started.
    """

    def __init__(
        self,
        make: ReplicaMaker,
        address: model.ServerAddress,
        spec: llm_spec.LlmSpec,
        backend: llm_spec.ExecutorBackend,
    ) -> None:
        self._make = make
        self._address = actor_process.placed(address)
        self._spec = spec
        self._backend = backend
        self._server: llm_server.LlmServer | None = None
        self._endpoint: model.Endpoint | None = None
        self._is_asleep = False
        # Before the engine starts a process, so that all of them are in the guarded group.
        process_guard.guard_this_process()

    @property
    def _started(self) -> llm_server.LlmServer:
        if self._server is None or self._endpoint is None:
            raise errors.Unavailable(f"replica {self._address.id} is not started")
        return self._server

    @actor_process.errors_as_values
    async def start(self, gpus: tuple[str, ...] = ()) -> tuple[model.Endpoint, int]:
        """Start the engine; return its endpoint and process id once it has made a token.

        `gpus` are the CUDA numbers of leased GPUs, which Ray did not give to this actor.
        """
        if gpus:
            # Before the engine is made: CUDA reads it once, when it is first used.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        actor_process.make_run_dir(self._address.run_dir)
        self._server = await self._make(self._address, self._spec, self._backend)
        self._endpoint = await self._server.start()
        return self._endpoint, os.getpid()

    @actor_process.errors_as_values
    async def living(self) -> llm_spec.LivingReplica:
        """Return what a restarted controller must know. Raises Unavailable before the start."""
        if self._endpoint is None:
            raise errors.Unavailable(f"replica {self._address.id} is not started")
        return llm_spec.LivingReplica(
            self._address.id, self._spec, self._endpoint, os.getpid(), self._is_asleep
        )

    @actor_process.errors_as_values
    async def live(self) -> str:
        """Return the reason when the engine fails; the call itself fails if the process ends."""
        return await self._started.wait_until_failed()

    @actor_process.errors_as_values
    async def report(self) -> llm_spec.LlmReport:
        """Return the replica's present state."""
        return self._started.report()

    @actor_process.errors_as_values
    async def update(self, spec: llm_spec.LlmSpec) -> None:
        """Follow another spec. Raises LoadFailed, and goes on as before, if that fails."""
        await self._started.update(spec)
        self._spec = spec

    @actor_process.errors_as_values
    async def sleep(self, level: int) -> None:
        """Answer the accepted requests, then put the engine to sleep at `level`."""
        await self._started.sleep(level)
        self._is_asleep = True

    @actor_process.errors_as_values
    async def wake(self) -> None:
        """Wake the engine; return once it has made a token again."""
        await self._started.wake()
        self._is_asleep = False

    @actor_process.errors_as_values
    async def stop(self) -> None:
        """Answer the accepted requests, then stop. A replica that never started only ends."""
        if self._server is not None and self._endpoint is not None:
            await self._server.drain(actor_process.DRAIN_S)
            await self._server.stop()
            actor_process.leave_run_dir(self._address.run_dir)
