"""A whole LLM replica without Ray: its engine, the engine's app on sockets, and the watch over it."""

from __future__ import annotations

import asyncio
import contextlib
import math

from meshserve import errors, tasks
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec, model
from meshserve.llm import llm_app, progress
from meshserve.protocol import asgi_server, sockets

WATCH_S = 0.1


class LlmServer:
    """Serves one LLM in this process. Made and used inside one running event loop; started once."""

    def __init__(
        self,
        address: model.ServerAddress,
        order: llm_engine.EngineOrder,
        make_engine: llm_engine.EngineMaker,
    ) -> None:
        self.address = address
        self.spec = order.spec
        self.engine = make_engine()
        self._order = order
        self._gauge = progress.EngineProgress()
        self._app: llm_app.LlmApp | None = None
        self._serving: asgi_server.RunningServer | None = None
        self._watching: asyncio.Task[None] | None = None
        self._failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> model.Endpoint:
        """Load the model, have it make a token, and listen; returns where. Raises MeshError with the reason, and leaves nothing then."""
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                await self.engine.start(self._order)
                await self.engine.make_token()
        except TimeoutError:
            self.engine.kill()
            await self.stop()
            raise errors.LoadFailed(
                f"{self.spec.name} was not ready within {self.spec.start_timeout_s:g} s"
            ) from None
        except BaseException:
            await self.stop()
            raise
        return await self._serve()

    async def _serve(self) -> model.Endpoint:
        self._app = llm_app.LlmApp(self.engine.app, self._failure)
        listeners = [
            sockets.unix_socket(self.address.socket_path),
            sockets.tcp_socket(self.address.host),
        ]
        self._serving = await asgi_server.serve(self._app, listeners)
        self._watching = tasks.spawn(self._watch(), "watch")
        return model.Endpoint(
            self.address.node, self.address.host, self._serving.port, self.address.socket_path
        )

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._failed.done():
            failure = self.engine.failure()
            if not failure:
                self._gauge.take(loop.time(), self.engine.counts())
                failure = self._stall()
            if failure:
                self._fail(failure)
            await asyncio.sleep(WATCH_S)

    def _failure(self) -> str:
        failure = self.engine.failure()
        return f"the engine has failed: {failure}" if failure else ""

    def _stall(self) -> str:
        stalled_s = self._gauge.stalled_s
        return (
            f"requests run, and none got on for {stalled_s:.0f} s"
            if stalled_s >= self.spec.stall_timeout_s
            else ""
        )

    def _fail(self, reason: str) -> None:
        """From now on requests are sent away; those inside end with errors, which an engine that stands still can't give them."""
        if self._app is not None:
            self._app.refusal = f"the engine has failed: {reason}"
        if not self._failed.done():
            self._failed.set_result(reason)
        self.engine.kill()

    def report(self) -> llm_spec.LlmReport:
        """How it is now."""
        counts = (
            self.engine.counts()
            if self._app is not None and not self._failed.done()
            else llm_engine.EngineCounts()
        )
        return llm_spec.LlmReport(
            replica_id=self.address.id,
            running=counts.running,
            waiting=counts.waiting,
            requests=self._app.requests if self._app is not None else 0,
            tokens=counts.tokens,
            tokens_per_s=self._gauge.tokens_per_s(),
            ttft_p50_s=self._gauge.ttft_s(0.5),
            ttft_p95_s=self._gauge.ttft_s(0.95),
            kv_used=counts.kv_used,
            stalled_s=self._gauge.stalled_s if counts.running + counts.waiting else 0.0,
        )

    async def wait_until_failed(self) -> str:
        """Returns the reason once the engine is dead or stands still. Nothing but `stop` is of use then."""
        return await asyncio.shield(self._failed)

    async def sleep(self, level: int) -> None:
        """Answer what was accepted, then free the GPUs and send requests away. Raises Unsupported where the engine can't."""
        serving_app = self._started()
        serving_app.is_draining = True
        try:
            await serving_app.wait_until_idle()
            serving_app.refusal = f"{self.spec.name} is asleep"
            await self.engine.sleep(level)
        except errors.MeshError:
            serving_app.refusal, serving_app.is_draining = "", False
            raise

    async def wake(self) -> None:
        """Take the GPUs again; returns once a token was made. Raises Unavailable, and has failed then."""
        serving_app = self._started()
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                await self.engine.wake()
                await self.engine.make_token()
        except (TimeoutError, errors.MeshError) as error:
            reason = f"{self.spec.name} did not wake: {str(error) or 'no token came in time'}"
            self._fail(reason)
            raise errors.Unavailable(reason) from error
        serving_app.refusal, serving_app.is_draining = "", False

    async def drain(self, timeout_s: float) -> None:
        """Say that no more shall come, and wait until every request that came is answered, or the time is over."""
        if self._app is None:
            return
        self._app.is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s if math.isfinite(timeout_s) else None):
                await self._app.wait_until_idle()

    async def stop(self) -> None:
        """End: no process, socket, file or task is left. Requests that still run end with errors."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.engine.close()
        if self._serving is not None:
            await self._serving.stop()

    def _started(self) -> llm_app.LlmApp:
        if self._app is None:
            raise errors.Unavailable(f"{self.address.id} is not started")
        return self._app
