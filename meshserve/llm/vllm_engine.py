"""vLLM behind the engine port. The only file that imports vLLM, and none of it before an engine starts: that takes seconds and threads."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.llm import crash_log, engine_env, process_tree, vllm_args, vllm_metrics

T = TypeVar("T")

CPU_DEFAULTS: dict[str, object] = {"enforce_eager": True}
"""On a CPU compiling takes minutes, and gains what few engines on CPUs live long enough to earn back."""

END_S = 5.0
PROBE = "1"
POOLING = ("embed", "classify", "token_embed", "token_classify")


def parser() -> Any:
    """The parser of vLLM's own command line. Raises MissingExtra, LoadFailed."""
    try:
        from vllm.entrypoints.launchers import cli_args
        from vllm.utils import argparse_utils
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "vllm":
            raise errors.LoadFailed(f"vLLM can't be imported: {error}") from error
        raise errors.MissingExtra(
            "LLMs need vLLM: pip install 'meshserve[llm]' (GPUs) or 'meshserve[llm-cpu]'"
        ) from error
    except (ImportError, RuntimeError) as error:
        raise errors.LoadFailed(f"vLLM can't be imported: {error}") from error
    return cli_args.make_arg_parser(argparse_utils.FlexibleArgumentParser(add_help=False))


def judge() -> None:
    """Read a list of `engine` mappings from standard input, and print what is wrong with each as one line."""
    made = parser()
    sys.stdout.write(
        "\n"
        + json.dumps([vllm_args.faults(made, engine) for engine in json.load(sys.stdin)])
        + "\n"
    )


def pause_while_waiting() -> None:
    """Have this process sleep, not spin, while it waits for another of its engine. vLLM calls it as a plugin in each of its processes.

    On a CPU its core would take a core of the machine from the model, and give its own threads, which bring requests in and send tokens
    out, the interpreter so seldom that whole answers came at once.
    """
    pause_s = os.environ.get(engine_env.PAUSE)
    if pause_s:
        from vllm.distributed.device_communicators import shm_broadcast

        shm_broadcast.sched_yield = functools.partial(time.sleep, float(pause_s))


class VllmEngine:
    """One LLM run by vLLM: its API in this process, its core and workers in processes of their own.

    What vLLM reads from the environment is set when it starts, so a process should have one engine, and nothing else that reads it.
    """

    def __init__(self) -> None:
        self._order: llm_engine.EngineOrder | None = None
        self._engine: Any = None
        self._app: Any = None
        self._tasks: tuple[str, ...] = ()
        self._folder: Path | None = None
        self._family = process_tree.ProcessTree()
        self._open = contextlib.AsyncExitStack()
        self._probes = itertools.count()
        self._slept_at = 0

    @property
    def app(self) -> llm_engine.Asgi:
        """The OpenAI app that is vLLM's own."""
        app: llm_engine.Asgi = self._app
        return app

    async def start(self, order: llm_engine.EngineOrder) -> None:
        """Import vLLM, start its processes, and load the model, all of that in a thread."""
        self._order = order
        self._folder = Path(tempfile.mkdtemp(prefix="llm-", dir=order.run_dir))
        self._set_environment(order, self._folder)
        args, self._engine = await self._in_words(asyncio.to_thread(self._load, order))
        self._family.remember()
        self._app = await self._in_words(self._build_app(args))

    def _set_environment(self, order: llm_engine.EngineOrder, folder: Path) -> None:
        cores = sorted(os.sched_getaffinity(0))
        for name, value in engine_env.defaults(
            order, cores, str(crash_log.configure(folder))
        ).items():
            os.environ.setdefault(name, value)
        os.environ.update(engine_env.enforced(order))

    def _load(self, order: llm_engine.EngineOrder) -> tuple[Any, Any]:
        made = parser()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers import cli_args
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        is_cpu = order.spec.device == "cpu"
        told = (
            CPU_DEFAULTS | {"kv_cache_memory_bytes": order.spec.cpu_kv_cache_bytes}
            if is_cpu
            else {}
        )
        args = vllm_args.namespace(made, order, told)
        cli_args.validate_parsed_serve_args(args)
        engine_args = AsyncEngineArgs.from_cli_args(args)
        context = UsageContext.OPENAI_API_SERVER
        config = engine_args.create_engine_config(usage_context=context)
        return args, AsyncLLM.from_vllm_config(
            config, usage_context=context, enable_log_requests=engine_args.enable_log_requests
        )

    async def _build_app(self, args: Any) -> Any:
        from vllm.entrypoints.launchers.api_server import app_state
        from vllm.entrypoints.launchers.app import build_app

        await self._engine.reset_mm_cache()
        self._tasks = tuple(await self._engine.get_supported_tasks())
        app = build_app(args, self._tasks, self._engine.model_config)
        await app_state.init_app_state(self._engine, app.state, args, self._tasks)
        # vLLM tells its server to exit when the engine dies. Ours stays, to say what happened, until whoever holds it ends it.
        app.state.server = types.SimpleNamespace(should_exit=False)
        await self._open.enter_async_context(app.router.lifespan_context(app))
        return app

    async def _in_words(self, work: Awaitable[T]) -> T:
        """What the work gives; its failure as one of ours, with the reason that is nearest to the cause."""
        try:
            return await work
        except errors.MeshError:
            raise
        except Exception as error:
            # vLLM raises whatever its libraries raise, and all of it means one thing here.
            raise errors.LoadFailed(self._reason() or f"{type(error).__name__}: {error}") from error

    def _reason(self) -> str:
        return crash_log.first(self._folder, time.time()) if self._folder is not None else ""

    async def make_token(self) -> None:
        """Have one made by the engine, beside its app."""
        await self._in_words(_exhaust(self._probe(f"ready-{next(self._probes)}")))

    def _probe(self, id_: str) -> AsyncIterator[object]:
        from vllm import PoolingParams, SamplingParams

        pooling = next((task for task in POOLING if task in self._tasks), None)
        outputs: AsyncIterator[object] = _once(self._engine.check_health)
        if "generate" in self._tasks:
            outputs = self._engine.generate(
                PROBE, SamplingParams(max_tokens=1, temperature=0.0), id_
            )
        elif pooling is not None:
            outputs = self._engine.encode(PROBE, PoolingParams(task=pooling), id_)
        return outputs

    def failure(self) -> str:
        """As vLLM sees it, which watches its core's process; workers that die take the core with them."""
        if self._engine is None or not self._engine.errored:
            return ""
        reason = self._reason()
        return f"the engine core ended: {reason}" if reason else "the engine core was killed"

    def counts(self) -> llm_engine.EngineCounts:
        """From vLLM's statistics and, because those stand still when the core does, from what this process waits for."""
        return vllm_metrics.counts(
            self._engine.get_num_unfinished_requests() if self._engine is not None else 0
        )

    async def sleep(self, level: int) -> None:
        """Put it to sleep, on a GPU that is shared."""
        self._refuse_to_sleep()
        await self._engine.sleep(level, mode="wait")
        self._slept_at = level

    async def wake(self) -> None:
        """Take the GPU again. What level 2 dropped is read from the disk anew, before there is a cache that could hold its nonsense."""
        self._refuse_to_sleep()
        if self._slept_at > 1:
            await self._engine.wake_up(["weights"])
            await self._engine.collective_rpc("reload_weights")
            await self._engine.wake_up(["kv_cache"])
        else:
            await self._engine.wake_up()

    def _refuse_to_sleep(self) -> None:
        spec = self._order.spec if self._order is not None else None
        if spec is None or spec.device != "cuda":
            raise errors.Unsupported("an engine on the CPU has no GPU to free: it can't sleep")
        if not spec.share:
            raise errors.Unsupported(
                f"{spec.name} was not started to share its GPUs: it can't sleep"
            )

    def kill(self) -> None:
        """SIGKILL, to stopped ones too."""
        self._family.kill()

    async def close(self) -> None:
        """Ask its processes to end, and end those that don't."""
        await self._open.aclose()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown, END_S)
            self._engine = self._app = None
        self._family.kill()
        await asyncio.to_thread(self._family.wait, END_S)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


async def _exhaust(outputs: AsyncIterator[object]) -> None:
    async for _ in outputs:
        pass


async def _once(work: Callable[[], Awaitable[object]]) -> AsyncIterator[object]:
    yield await work()
