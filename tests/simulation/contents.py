"""What models are made of: contents by number, a runtime that runs them, a storage that has them.

An answer says of which content it is, so that the oracle can judge it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath

import greenlet
import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import runtime_lookup
from tests.simulation import simulated_loop

RUNTIME = "simulated"
KILLER = 13.0
"""The input by which a content that `kills` in a run does so."""

RAISED = "this content takes no such input"
Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Content:
    """The bytes behind a URI, and how they behave.

    `kills` is empty, `load` or `run`; `hangs` is empty or `load`. `hint` is the guess of the bytes
    that it takes, as a multiple of what it takes. `mixes`: rows of one run influence each other.
    """

    number: int
    size_bytes: int = 1 << 20
    load_s: float = 0.1
    run_s: float = 0.0001
    hint: float = 1.5
    is_broken: bool = False
    kills: str = ""
    hangs: str = ""
    is_joinable: bool = True
    mixes: bool = False

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(str(self.number).encode()).hexdigest()}"

    @property
    def is_good(self) -> bool:
        """Return whether it loads, and answers every input."""
        return not (self.is_broken or self.kills or self.hangs)


@dataclass
class Repository:
    """All contents by digest, what each URI has now, and which URIs can't be read."""

    contents: dict[str, Content] = field(default_factory=dict)
    uris: dict[str, Content] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    slow_s: float = 0.0

    def put(self, uri: str, content: Content) -> None:
        """Put the content at the URI."""
        self.contents[content.digest] = content
        self.uris[uri] = content


class SimulatedMemory:
    """The memory of a process, as its allocator and its kernel count it."""

    counts_by_thread = True
    BASE_BYTES = 20 << 20

    def __init__(self) -> None:
        self.live_bytes = 0
        self.models = 0
        self._by_thread: Counter[object] = Counter()

    def take(self, size_bytes: int) -> None:
        """Allocate bytes; a negative number frees them."""
        self.live_bytes += size_bytes
        self._by_thread[greenlet.getcurrent()] += size_bytes

    def private_bytes(self) -> int:
        return self.BASE_BYTES + self.live_bytes

    def in_use_bytes(self) -> int:
        return self.live_bytes

    def own_bytes(self) -> int:
        return self._by_thread[greenlet.getcurrent()]

    def free_bytes(self) -> int:
        return 0

    def tune(self) -> None:
        """Do nothing."""

    tune_loader = trim = tune


MEMORY: dict[simulated_loop.SimulatedProcess, SimulatedMemory] = {}
"""The memory of each process of the simulation that runs."""


class SimulatedModel(model_runtime.LoadedModel):
    """A content in the memory of a process."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._memory = MEMORY[simulated_loop.this_process()]
        self._memory.models += 1
        self.signature = model.Signature(
            (model.TensorSpec("x", "FP32", (-1, 1)),),
            (model.TensorSpec("x", "FP32", (-1, 1)), model.TensorSpec("content", "INT64", (-1, 1))),
            has_batch_dimension=True,
            can_join=content.is_joinable,
        )
        self.capabilities = model_runtime.Capabilities(is_steady=not content.kills)
        self.probe = {"x": np.zeros((1, 1), np.float32)}

    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        rows = inputs["x"]
        simulated_loop.work(self._content.run_s)
        if self._content.kills == "run" and (rows == KILLER).any():
            simulated_loop.end_this_process("SIGSEGV")
        if (rows < 0).any():
            raise ValueError(RAISED)
        echo = rows + rows.sum() - rows[0] if self._content.mixes else rows.copy()
        answer = {"x": echo, "content": np.full(rows.shape, self._content.number, np.int64)}
        return {name: answer[name] for name in outputs or answer}

    def close(self) -> None:
        self._memory.take(-self._content.size_bytes)
        self._memory.models -= 1


class SimulatedRuntime(model_runtime.Runtime):
    """Loads the contents of the repository of the simulation that runs."""

    name = RUNTIME

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        return artifact.digest in self._repository.contents

    def prepare(self, device: str) -> None:
        """Do nothing: there is no library."""

    def footprint_hint(self, artifact: model_runtime.Artifact, _device: str) -> model.Footprint:
        content = self._repository.contents[artifact.digest]
        return model.Footprint(int(content.size_bytes * content.hint))

    def find_row_mixing(
        self,
        _loaded: model_runtime.LoadedModel,
        artifact: model_runtime.Artifact,
        _spec: model.ModelSpec,
    ) -> str | None:
        simulated_loop.work(0.5)
        return "rows are mixed" if self._repository.contents[artifact.digest].mixes else None

    def load(
        self, artifact: model_runtime.Artifact, _spec: model.ModelSpec, _device: str
    ) -> SimulatedModel:
        content = self._repository.contents[artifact.digest]
        memory = MEMORY[simulated_loop.this_process()]
        simulated_loop.work(content.load_s / 2)
        if content.kills == "load":
            simulated_loop.end_this_process("SIGSEGV")
        if content.hangs == "load":
            simulated_loop.work(simulated_loop.FOREVER_S)
        if content.is_broken:
            raise ValueError(f"content {content.number} is broken")
        memory.take(content.size_bytes)
        simulated_loop.work(content.load_s / 2)
        return SimulatedModel(content)


@contextmanager
def known_runtime(repository: Repository) -> Iterator[None]:
    """Add the runtime to those that models may name, meanwhile."""
    runtime_lookup.BUILT_IN[RUNTIME] = SimulatedRuntime(repository)
    try:
        yield
    finally:
        del runtime_lookup.BUILT_IN[RUNTIME]


class SimulatedStorage:
    """A node's storage. `held` counts the holds by digest."""

    def __init__(self, repository: Repository, chance: random.Random) -> None:
        self._repository = repository
        self._chance = chance
        self.held: Counter[str] = Counter()

    async def fetch(
        self,
        uri: str,
        checksum: str,
        *,
        verifies: bool = False,
        file_root: str = "",  # noqa: ARG002
    ) -> model_runtime.Artifact:
        late_s = 0.0 if verifies else self._chance.choice((0.0, 0.001, 0.05))
        await asyncio.sleep(late_s)
        for _ in range(math.ceil(self._repository.slow_s)):
            # Transfers are quick again as soon as the storage is.
            if self._repository.slow_s:
                await asyncio.sleep(1.0)
        content = self._repository.uris.get(uri)
        if content is None or uri in self._repository.unreadable:
            raise errors.LoadFailed(f"there is nothing at {uri}")
        if checksum not in ("", content.digest):
            raise errors.LoadFailed(f"{uri} has not the checksum {checksum}")
        return model_runtime.Artifact(PurePath("/simulated") / uri, content.digest, 1000)

    async def is_untouched(self, artifact: model_runtime.Artifact) -> bool:  # noqa: ARG002
        """Say that nobody else writes to the simulated files."""
        return True

    async def find_earlier(self, uri: str) -> str:  # noqa: ARG002
        """Know no earlier contents."""
        return ""

    def give_up(self, uri: str) -> None:
        """Keep everything."""

    def hold(self, artifact: model_runtime.Artifact) -> None:
        self.held[artifact.digest] += 1

    def release(self, artifact: model_runtime.Artifact) -> None:
        self.held[artifact.digest] -= 1
        assert self.held[artifact.digest] >= 0, "an artifact was released that was not held"

    async def close(self) -> None:
        """Do nothing: what is held ends with the process."""
