"""What an LLM server needs from an engine, as a Protocol that vLLM's adapter and the fake implement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from meshserve.core.values import llm_spec

Asgi: TypeAlias = Callable[
    [dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]],
    Awaitable[None],
]


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """What an engine shall run: a model and adapters that are on this node, and a folder of its own for what it must write."""

    spec: llm_spec.LlmSpec
    model_path: str
    adapter_paths: Mapping[str, str] = field(default_factory=dict)
    backend: llm_spec.ExecutorBackend = "mp"
    run_dir: str = "."


class EngineCounts(NamedTuple):
    """An engine at one moment. `running` and `waiting` are requests now; `tokens` and `ttft` are totals since it began.

    `ttft`: how many requests had their first token within so many seconds, for growing bounds (the last is infinite). `progress` is any
    value that differs from one moment to the next as long as the engine gets on with its requests.
    """

    running: int = 0
    waiting: int = 0
    tokens: int = 0
    kv_used: float = 0.0
    ttft: tuple[tuple[float, int], ...] = ()
    progress: object = None


class Engine(Protocol):
    """One LLM in memory, with its processes. Made once, started once, closed once."""

    async def start(self, order: EngineOrder) -> None:
        """Load it. The event loop goes on meanwhile. Raises LoadFailed with the reason for a user, MissingExtra, InvalidRequest."""
        ...

    @property
    def app(self) -> Asgi:
        """The engine's own OpenAI app, from when it is started."""
        ...

    async def make_token(self) -> None:
        """Returns once it has made a token, or a vector where it makes no tokens. Raises MeshError."""
        ...

    def failure(self) -> str:
        """Why it can't answer any more; empty while it lives. Costs next to nothing."""
        ...

    def counts(self) -> EngineCounts:
        """How it is now."""
        ...

    async def sleep(self, level: int) -> None:
        """Free the GPUs once its requests are done; level 1 keeps the weights in host memory, 2 nothing. Raises Unsupported."""
        ...

    async def wake(self) -> None:
        """Take the GPUs again, and be as before. Raises MeshError."""
        ...

    def kill(self) -> None:
        """End its processes at once, whatever they do: requests in it end with errors."""
        ...

    async def close(self) -> None:
        """End its processes and give everything back; whether it was started, has failed, or neither."""
        ...


EngineMaker: TypeAlias = Callable[[], Engine]
