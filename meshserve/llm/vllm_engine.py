"""vLLM as an engine. Only this file imports vLLM, and only when an engine starts.

Importing vLLM takes seconds and starts threads, which no other process should have to bear.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.llm import crash_log, process_tree, vllm_args, vllm_env, vllm_metrics

T = TypeVar("T")

CPU_DEFAULTS: dict[str, object] = {"enforce_eager": True}
"""On a CPU, compiling takes minutes, more than most engines gain by it in their whole life."""

INSTALL_HINT = (
    "LLMs need vLLM: pip install 'meshserve[llm]' (NVIDIA GPUs) or 'meshserve[llm-cpu]' (none), "
    "not both"
)
SHUTDOWN_S = 5.0
PROMPT = "1"
POOLING_TASKS = ("embed", "classify", "token_embed", "token_classify")


def make_parser() -> Any:
    """Return the parser of vLLM's command line.

    Raises MissingExtra if vLLM is not installed, LoadFailed if it can't be imported.
    """
    try:
        from vllm.entrypoints.launchers import cli_args
        from vllm.utils import argparse_utils
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "vllm":
            raise errors.LoadFailed(f"vLLM can't be imported: {error}") from error
        raise errors.MissingExtra(INSTALL_HINT) from error
    except (ImportError, RuntimeError) as error:
        raise errors.LoadFailed(f"vLLM can't be imported: {error}") from error
    # Without `--help`, which is no argument of an engine.
    return cli_args.make_arg_parser(argparse_utils.FlexibleArgumentParser(add_help=False))


def check_arguments() -> None:
    """Read a JSON list of `engine` sections from stdin, and print their faults as a JSON line.

    This is the main function of the child process that `vllm_args.check_in_child` starts.
    """
    parser = make_parser()
    faults = [
        # Together only where each key is good alone: `parse_section` takes no others.
        vllm_args.faults(parser, section) or _faults_together(parser, section)
        for section in json.load(sys.stdin)
    ]
    # On a line of its own: what vLLM printed before may not have ended its last one.
    sys.stdout.write(f"\n{json.dumps(faults)}\n")


def _faults_together(parser: Any, section: Mapping[str, object]) -> list[llm_engine.ArgumentFault]:
    """Return what vLLM's server says against a section whose keys are good one by one."""
    from vllm.entrypoints.launchers import cli_args, launcher

    if not section:
        return []
    args = vllm_args.parse_section(parser, section)
    try:
        cli_args.validate_parsed_serve_args(args)
        launcher.validate_api_server_args(args)
    except (KeyError, TypeError, ValueError) as error:
        message = str(error.args[0] if error.args else error).removeprefix("Error: ")
        return [llm_engine.ArgumentFault(vllm_args.key_of(section, message), message)]
    return []


def pause_while_waiting() -> None:
    """Make this process sleep instead of spin while it waits for another process of its engine.

    vLLM calls this plugin (entry point `vllm.general_plugins`) in each of its processes. It does
    nothing unless the environment variable MESHSERVE_ENGINE_PAUSE_S is set.
    """
    pause_s = os.environ.get(vllm_env.PAUSE)
    if pause_s:
        from vllm.distributed.device_communicators import shm_broadcast

        shm_broadcast.sched_yield = functools.partial(time.sleep, float(pause_s))


class VllmEngine(llm_engine.Engine):
    """One LLM run by vLLM: its API in this process, its core and workers in processes of their own.

    `start` sets environment variables of this process for vLLM, so a process should have only one
    engine, and no other code that reads them.
    """

    def __init__(self) -> None:
        self._order: llm_engine.EngineOrder | None = None
        self._engine: Any = None
        self._app: Any = None
        self._tasks: tuple[str, ...] = ()
        self._folder: Path | None = None
        self._processes = process_tree.ProcessTree()
        self._lifespan = contextlib.AsyncExitStack()
        self._probe_numbers = itertools.count()
        self._sleep_level = 0

    @classmethod
    def install_hint(cls) -> str:
        """Return how to install vLLM, "" if it is installed."""
        return "" if importlib.util.find_spec("vllm") else INSTALL_HINT

    @classmethod
    def argument_faults(
        cls, sections: Sequence[Mapping[str, object]]
    ) -> list[list[llm_engine.ArgumentFault]]:
        """Return the arguments that vLLM's own parser refuses, one list for each section."""
        return vllm_args.check_in_child(sections)

    @property
    def capabilities(self) -> llm_engine.EngineCapabilities:
        """The engine can sleep if it was started on GPUs that it shares; it serves adapters.

        It takes others while it runs if it was started with some, or with `enable_lora`: vLLM
        prepares its layers for adapters only then.
        """
        spec = self._order.spec if self._order is not None else None
        can_sleep = spec is not None and spec.device == "cuda" and bool(spec.share)
        config = self._engine.vllm_config if self._engine is not None else None
        return llm_engine.EngineCapabilities(
            can_sleep,
            has_adapters=True,
            max_model_len=config.model_config.max_model_len if config is not None else 0,
            can_change_adapters=config is not None and config.lora_config is not None,
        )

    @property
    def app(self) -> llm_engine.Asgi:
        """The OpenAI app of vLLM itself."""
        app: llm_engine.Asgi = self._app
        return app

    async def start(self, order: llm_engine.EngineOrder) -> None:
        """Import vLLM, start its processes and load the model, in a thread.

        Raises LoadFailed, MissingExtra or InvalidRequest.
        """
        self._order = order
        # A folder of its own, because the replicas of a node share the run folder.
        self._folder = Path(tempfile.mkdtemp(prefix="llm-", dir=order.run_dir))
        self._set_environment(order, self._folder)
        args, self._engine = await self._translating_errors(asyncio.to_thread(self._load, order))
        # The processes' shared memory can be found only while they live.
        self._processes.remember()
        self._app = await self._translating_errors(self._build_app(args))

    def _set_environment(self, order: llm_engine.EngineOrder, folder: Path) -> None:
        cores = sorted(os.sched_getaffinity(0))
        logging_config = str(crash_log.configure(folder))
        for name, value in vllm_env.defaults(order, cores, logging_config).items():
            os.environ.setdefault(name, value)
        os.environ.update(vllm_env.enforced(order))

    def _load(self, order: llm_engine.EngineOrder) -> tuple[Any, Any]:
        parser = make_parser()
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers import cli_args, launcher
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM

        cpu_defaults = CPU_DEFAULTS | {"kv_cache_memory_bytes": order.spec.cpu_kv_cache_bytes}
        defaults = cpu_defaults if order.spec.device == "cpu" else {}
        args = vllm_args.namespace(parser, order, defaults)
        context = UsageContext.OPENAI_API_SERVER
        try:
            cli_args.validate_parsed_serve_args(args)
            launcher.validate_api_server_args(args)
            engine_args = AsyncEngineArgs.from_cli_args(args)
            config = engine_args.create_engine_config(usage_context=context)
        except (KeyError, TypeError, ValueError) as error:
            # The arguments and the model's configuration do not fit: no further try helps.
            raise errors.Unloadable(f"{type(error).__name__}: {error}") from error
        return args, AsyncLLM.from_vllm_config(
            config, usage_context=context, enable_log_requests=engine_args.enable_log_requests
        )

    async def _build_app(self, args: Any) -> Any:
        from vllm.entrypoints.launchers.api_server import app_state
        from vllm.entrypoints.launchers.app import build_app

        # vLLM's own launcher does this too: profiling filled the cache while the engine loaded.
        await self._engine.reset_mm_cache()
        self._tasks = tuple(await self._engine.get_supported_tasks())
        app = build_app(args, self._tasks, self._engine.model_config)
        await app_state.init_app_state(self._engine, app.state, args, self._tasks)
        # vLLM makes its server exit when the engine dies. Our server must stay until it is stopped,
        # to answer requests with the reason.
        app.state.server = types.SimpleNamespace(should_exit=False)
        await self._lifespan.enter_async_context(app.router.lifespan_context(app))
        return app

    async def _translating_errors(self, work: Awaitable[T]) -> T:
        """Await `work`; raise its failures as LoadFailed with the reason nearest to the cause."""
        try:
            return await work
        except errors.MeshError:
            raise
        except Exception as error:
            # vLLM lets exceptions of all its libraries through; each means that the load failed.
            raise errors.LoadFailed(self._reason() or f"{type(error).__name__}: {error}") from error

    def _reason(self) -> str:
        if self._folder is None:
            return ""
        return crash_log.first_reason(self._folder, time.time())

    async def make_token(self) -> None:
        """Have the engine generate one token, or compute one vector. Raises LoadFailed."""
        await self._translating_errors(_exhaust(self._probe(f"ready-{next(self._probe_numbers)}")))

    def _probe(self, request_id: str) -> AsyncIterator[object]:
        from vllm import PoolingParams, SamplingParams

        pooling_task = next((task for task in POOLING_TASKS if task in self._tasks), None)
        outputs: AsyncIterator[object] = _once(self._engine.check_health)
        if "generate" in self._tasks:
            params = SamplingParams(max_tokens=1, temperature=0.0)
            outputs = self._engine.generate(PROMPT, params, request_id)
        elif pooling_task is not None:
            outputs = self._engine.encode(PROMPT, PoolingParams(task=pooling_task), request_id)
        return outputs

    async def add_adapter(self, name: str, path: str) -> None:
        """Load an adapter by the function behind vLLM's own path for it. Raises LoadFailed."""
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse
        from vllm.entrypoints.serve.lora.protocol import LoadLoRAAdapterRequest

        models = self._app.state.openai_serving_models
        request = LoadLoRAAdapterRequest(lora_name=name, lora_path=path)
        answer = await self._translating_errors(models.load_lora_adapter(request))
        if isinstance(answer, ErrorResponse):
            raise errors.LoadFailed(f"adapter {name} can't be loaded: {answer.error.message}")

    async def remove_adapter(self, name: str) -> None:
        """Forget an adapter; vLLM's cache drops its weights when it needs the room."""
        from vllm.entrypoints.serve.lora.protocol import UnloadLoRAAdapterRequest

        models = self._app.state.openai_serving_models
        await models.unload_lora_adapter(UnloadLoRAAdapterRequest(lora_name=name))

    def failure(self) -> str:
        """Return why the core ended, "" while it lives; the death of a worker ends the core too."""
        if self._engine is None or not self._engine.errored:
            return ""
        reason = self._reason()
        return f"the engine core ended: {reason}" if reason else "the engine core was killed"

    def counts(self) -> llm_engine.EngineCounts:
        """Return vLLM's counts.

        They stop changing when the core hangs, so this process counts the requests itself.
        """
        engine = self._engine
        unfinished = engine.get_num_unfinished_requests() if engine is not None else 0
        return vllm_metrics.counts(unfinished)

    async def sleep(self, level: int) -> None:
        """Free the GPUs."""
        await self._engine.sleep(level, mode="wait")
        self._sleep_level = level

    async def wake(self) -> None:
        """Take the GPUs again; after level 2 also load the weights again."""
        if self._sleep_level > 1:
            # The KV cache comes last: it must not hold values of weights that are not loaded yet.
            await self._engine.wake_up(["weights"])
            await self._engine.collective_rpc("reload_weights")
            await self._engine.wake_up(["kv_cache"])
        else:
            await self._engine.wake_up()

    def kill(self) -> None:
        """Send SIGKILL to the engine's processes."""
        self._processes.kill()

    async def close(self) -> None:
        """Ask the engine's processes to end, kill those that don't, and remove its files."""
        # The app ends first, because it reads the engine's statistics in the background.
        await self._lifespan.aclose()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.shutdown, SHUTDOWN_S)
            self._engine = self._app = None
        self._processes.kill()
        await asyncio.to_thread(self._processes.wait, SHUTDOWN_S)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


async def _exhaust(outputs: AsyncIterator[object]) -> None:
    async for _ in outputs:
        pass


async def _once(work: Callable[[], Awaitable[object]]) -> AsyncIterator[object]:
    yield await work()
