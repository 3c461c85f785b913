"""One replica of an LLM without Ray: it runs an engine, serves the engine's app, and watches it."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from meshserve import errors, tasks
from meshserve.core.interfaces import llm_engine
from meshserve.core.llm import public_reason
from meshserve.core.values import llm_spec, model
from meshserve.llm import adapter_changes, llm_app, memory_use, progress
from meshserve.protocol import asgi_server, guarded_app, sockets

WATCH_S = 0.1


async def accept_weights(_: llm_spec.LlmSpec) -> None:
    """Take any weights as those that were ordered."""


async def find_at_uri(adapter: llm_spec.Adapter) -> str:
    """Return the adapter's URI as its folder."""
    return adapter.uri


class WeightsAccess(NamedTuple):
    """The way to weights on this node.

    `check` raises MeshError if other weights than those of a spec are there now.
    """

    check: Callable[[llm_spec.LlmSpec], Awaitable[None]] = accept_weights
    fetch_adapter: adapter_changes.FetchAdapter = find_at_uri


class LlmServer:
    """Serves one LLM in this process, in the event loop that creates it. It is started once."""

    def __init__(
        self,
        address: model.ServerAddress,
        order: llm_engine.EngineOrder,
        make_engine: llm_engine.EngineMaker,
        weights: WeightsAccess = WeightsAccess(),  # noqa: B008 - it is frozen
    ) -> None:
        self.address = address
        self.spec = order.spec
        self.engine = make_engine()
        self._order = order
        self._weights = weights
        self._adapters: adapter_changes.AdapterChanges | None = None
        self._progress = progress.EngineProgress()
        self._memory = memory_use.MemoryMeter()
        self._app: llm_app.LlmApp | None = None
        self._serving: asgi_server.RunningServer | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> model.Endpoint:
        """Load the model, generate a token, listen, and return the endpoint.

        Raises MeshError with the reason if that fails, and then leaves no process and no file.
        """
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                await self._start_engine()
        except TimeoutError:
            # An engine that hangs in its start may not react to `close`.
            self.engine.kill()
            await self.stop()
            raise errors.LoadFailed(
                f"{self.spec.name} was not ready within {self.spec.start_timeout_s:g} s"
            ) from None
        # Also if the start is cancelled, as a stop does: no engine may be left behind.
        except BaseException:
            await self.stop()
            raise
        return await self._serve()

    async def _start_engine(self) -> None:
        if self._order.adapter_paths and not self.engine.capabilities.has_adapters:
            raise errors.LoadFailed(
                f"{self.spec.name} has adapters, and engine {self.spec.runtime!r} serves none"
            )
        await self.engine.start(self._order)
        # They may have been written while the engine read them.
        await self._weights.check(self.spec)
        # Some engines load and then fail at the first step: only a token proves that one works.
        await self.engine.make_token()

    async def _serve(self) -> model.Endpoint:
        self._app = llm_app.LlmApp(self.engine.app, self.spec.name, self._failure)
        self._adapters = adapter_changes.AdapterChanges(
            self.engine, self._app.names, self._weights.fetch_adapter
        )
        address = self.address
        listeners = sockets.server_sockets(address.socket_path, address.host, address.secret)
        # On the Unix socket too, which leaves one rule for all listeners of a mesh.
        app = guarded_app.guard(self._app, address.secret)
        self._serving = await asgi_server.serve(app, listeners)
        self._watch_task = tasks.spawn(self._watch(), "watch the engine")
        return model.Endpoint(address.node, address.host, self._serving.port, address.socket_path)

    async def _watch(self) -> None:
        # The watch is outside the engine's core, because a core that hangs can't report it
        # (docs/decisions/0085-engines-are-watched-from-outside.md).
        loop = asyncio.get_running_loop()
        while not self._failed.done():
            failure = self.engine.failure()
            if not failure:
                self._progress.observe(loop.time(), self.engine.counts())
                failure = self._stall()
            if failure:
                self._fail(failure)
            await asyncio.sleep(WATCH_S)

    def _failure(self) -> str:
        failure = self.engine.failure()
        return f"the engine has failed: {public_reason.for_callers(failure)}" if failure else ""

    def _stall(self) -> str:
        stalled_s = self._progress.stalled_s
        return (
            f"requests run, and none got on for {stalled_s:.0f} s"
            if stalled_s >= self.spec.stall_timeout_s
            else ""
        )

    def _fail(self, reason: str) -> None:
        """Refuse requests from now on, and kill the engine.

        A hanging engine would never end its streams; a killed one ends them with errors.
        """
        if self._app is not None:
            self._app.refusal = f"the engine has failed: {public_reason.for_callers(reason)}"
        if not self._failed.done():
            self._failed.set_result(reason)
        self.engine.kill()

    def report(self) -> llm_spec.LlmReport:
        """Return the present report of the replica."""
        is_running = self._app is not None and not self._failed.done()
        counts = self.engine.counts() if is_running else llm_engine.EngineCounts()
        loop = asyncio.get_running_loop()
        memory = self._memory.use(loop.time()) if is_running else memory_use.MemoryUse()
        return llm_spec.LlmReport(
            replica_id=self.address.id,
            running=counts.running,
            waiting=counts.waiting,
            requests=self._app.requests if self._app is not None else 0,
            tokens=counts.tokens,
            tokens_per_s=self._progress.tokens_per_s(),
            ttft_p50_s=self._progress.ttft_s(0.5),
            ttft_p95_s=self._progress.ttft_s(0.95),
            kv_used=counts.kv_used,
            stalled_s=self._progress.stalled_s if counts.running + counts.waiting else 0.0,
            max_model_len=self.engine.capabilities.max_model_len,
            can_change_adapters=is_running and self.engine.capabilities.can_change_adapters,
            memory_bytes=memory.used_bytes,
            memory_free_bytes=memory.free_bytes,
        )

    async def wait_until_failed(self) -> str:
        """Wait until the engine is dead or hangs; return the reason. Call `stop` then."""
        # Shielded, because a waiter that is cancelled would cancel the future for all others.
        return await asyncio.shield(self._failed)

    async def update(self, spec: llm_spec.LlmSpec) -> None:
        """Follow a spec with other adapters or another stall time.

        Raises MeshError if an adapter can't be served; then all is as before.
        """
        if self._adapters is None:
            raise errors.Unavailable(f"{self.address.id} is not started")
        await self._adapters.change(self.spec.adapters, spec.adapters)
        self.spec = spec

    async def sleep(self, level: int) -> None:
        """Answer the accepted requests, then refuse new ones and free the GPUs.

        Level 1 keeps the weights in host memory, level 2 keeps nothing. Raises Unsupported, and
        goes on serving, if the engine can't sleep.
        """
        app = self._started_app()
        if not self.engine.capabilities.can_sleep:
            raise errors.Unsupported(
                f"{self.spec.name} was not started to share its GPUs: it can't sleep"
                if self.spec.gpus
                else "an engine on the CPU has no GPU to free: it can't sleep"
            )
        app.is_draining = True
        try:
            await app.wait_until_idle()
            app.refusal = f"{self.spec.name} is asleep"
            await self.engine.sleep(level)
        except errors.MeshError:
            app.refusal, app.is_draining = "", False
            raise

    async def wake(self) -> None:
        """Take the GPUs again, and return once a token was generated.

        Raises Unavailable if that fails; then the engine is killed and the server has failed.
        """
        app = self._started_app()
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                await self.engine.wake()
                # A deep sleep keeps nothing, and the weights are read again.
                await self._weights.check(self.spec)
                await self.engine.make_token()
        except (TimeoutError, errors.MeshError) as error:
            reason = f"{self.spec.name} did not wake: {str(error) or 'no token came in time'}"
            self._fail(reason)
            raise errors.Unavailable(reason) from error
        app.refusal, app.is_draining = "", False

    async def drain(self, timeout_s: float) -> None:
        """Fail the health check, and wait for at most `timeout_s` until all requests are done."""
        if self._app is None:
            return
        self._app.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s if math.isfinite(timeout_s) else None):
                await self._app.wait_until_idle()

    async def stop(self) -> None:
        """End all processes, sockets, files and tasks. Requests that run end with errors."""
        # First, so that the end of the engine is not taken for a failure.
        if self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.gather(self._watch_task, return_exceptions=True)
        await self.engine.close()
        if self._serving is not None:
            await self._serving.stop()

    def _started_app(self) -> llm_app.LlmApp:
        if self._app is None:
            raise errors.Unavailable(f"{self.address.id} is not started")
        return self._app
