"""What an LLM server needs from an engine, such as vLLM.

A third party adds a kind of engine by subclassing `Engine`: see docs/write-an-engine.md. It is a
base class, not a Protocol, so that an engine written today keeps working when the mesh asks for
more: what it does not declare, it is not asked for.
"""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from meshserve import errors
from meshserve.core.values import llm_spec

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application (https://asgi.readthedocs.io/en/latest/specs/www.html)."""


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What an engine is to run: a model and adapters that are on this node.

    `model_path` is a folder, or a name at Hugging Face. `adapter_paths` has a folder for each
    adapter's name. `run_dir` is a folder for what the engine must write; other
    programs have files in it too. `commit` is the commit at Hugging Face that must be served, if
    the model is a name there and its commit is known.
    """

    spec: llm_spec.LlmSpec
    model_path: str
    adapter_paths: Mapping[str, str] = field(default_factory=dict)
    backend: llm_spec.ExecutorBackend = "mp"
    run_dir: str = "."
    commit: str = ""


@dataclass(frozen=True, slots=True)
class EngineCapabilities:
    """What the mesh may ask of an engine.

    `can_sleep`: it implements `sleep` and `wake`. `has_adapters`: it serves the adapters of its
    order; LLMs with adapters do not start on an engine without. `can_change_adapters`: it
    implements `add_adapter` and `remove_adapter`. `max_model_len` is the most tokens
    of a request and its answer together, 0 while it is unknown.
    """

    can_sleep: bool = False
    has_adapters: bool = False
    max_model_len: int = 0
    can_change_adapters: bool = False


class EngineCounts(NamedTuple):
    """An engine at one moment.

    `running` and `waiting` are requests now; `tokens` and `ttft` are totals since it started.
    `kv_used` is the used share of the KV cache, 0 to 1. `ttft` is a cumulative histogram of the
    time to first token: pairs of an upper bound in seconds and the number of requests within it,
    the last bound infinite. `progress` is any value that changes with every step that the engine
    makes for its requests: one that stays the same for `stall_timeout_s` is a stalled engine.
    """

    running: int = 0
    waiting: int = 0
    tokens: int = 0
    kv_used: float = 0.0
    ttft: tuple[tuple[float, int], ...] = ()
    progress: object = None


class ArgumentFault(NamedTuple):
    """A key of an LLM's `engine` section, and what is wrong with it."""

    key: str
    message: str


class Engine(abc.ABC):
    """One LLM in memory, with its processes. Made without arguments, started once, closed once.

    Everything but `kill` is called on one event loop, which must go on while the engine works.
    """

    @classmethod
    def install_hint(cls) -> str:
        """Return how to install what engines of this kind lack on this machine, "" if nothing."""
        return ""

    @classmethod
    def argument_faults(cls, sections: Sequence[Mapping[str, object]]) -> list[list[ArgumentFault]]:
        """Return what is wrong with each of several `engine` sections, in their order.

        Called when a configuration is read, also on machines that run no engine: import nothing
        big into this process.
        """
        return [[] for _ in sections]

    @property
    def capabilities(self) -> EngineCapabilities:
        """What the mesh may ask of it; may depend on its order, and so change with `start`."""
        return EngineCapabilities()

    @abc.abstractmethod
    async def start(self, order: EngineOrder) -> None:
        """Load the model.

        Raises LoadFailed with the reason for a user, MissingExtra, or InvalidRequest for an
        argument in the `engine` section. `close` is called after a failure too.
        """

    @property
    @abc.abstractmethod
    def app(self) -> Asgi:
        """The engine's own app, once it is started: OpenAI's API for the spec's name and adapters.

        Aliases are not its business: the server around it translates them to the name.
        Errors have OpenAI's shape. A stream whose engine fails ends with an error event. A client
        that leaves ends its request.
        """

    @abc.abstractmethod
    async def make_token(self) -> None:
        """Make one token beside the app, or a vector if it makes no tokens. Raises MeshError."""

    @abc.abstractmethod
    def failure(self) -> str:
        """Return why it can't answer any more, "" while it can. Called with every request."""

    @abc.abstractmethod
    def counts(self) -> EngineCounts:
        """Return its counts now. Called ten times a second."""

    async def add_adapter(self, name: str, path: str) -> None:
        """Serve one more adapter while requests run, by a name that it does not serve already.

        Raises LoadFailed with the reason, Unsupported unless it `can_change_adapters`.
        """
        raise errors.Unsupported(f"this engine takes no adapters while it runs: {name} at {path}")

    async def remove_adapter(self, name: str) -> None:
        """Serve an adapter no longer; requests that run with it end as they would have.

        Raises Unsupported unless it `can_change_adapters`.
        """
        raise errors.Unsupported(f"this engine keeps its adapters while it runs: {name}")

    async def sleep(self, level: int) -> None:
        """Free the GPUs; called only without requests. Raises Unsupported unless it `can_sleep`.

        Level 1 keeps the weights in host memory, level 2 nothing.
        """
        raise errors.Unsupported(f"this engine can't sleep (level {level})")

    async def wake(self) -> None:
        """Take the GPUs again, and serve as before `sleep`. Raises MeshError."""
        raise errors.Unsupported("this engine can't sleep")

    @abc.abstractmethod
    def kill(self) -> None:
        """End its processes at once, even stopped ones. Requests in it end with errors."""

    @abc.abstractmethod
    async def close(self) -> None:
        """End its processes and remove its files from `run_dir`, in whatever state it is."""


EngineMaker: TypeAlias = Callable[[], Engine]
