"""A control plane on fakes, its clock in the test's hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from meshserve import errors
from meshserve.control import control_plane, source_sync
from meshserve.core.mesh import mesh
from meshserve.core.values import catalog, llm_spec, model
from meshserve.protocol import paths
from meshserve.testing import fake_cluster, fake_store, manual_clock
from tests import support

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 7000, "/run/controller.sock")
OWNER_KEY = "the-owner"
CONFIG = {
    "pools": {"default": {"workers": 2}, "gpu": {"workers": 1}},
    "models": [
        {"name": "conf", "uri": "/models/conf", "aliases": ["al"]},
        {"name": "big", "uri": "/models/big", "pool": "gpu"},
    ],
}


@dataclass
class Stage:
    """A control plane and all that is around it."""

    state_dir: str
    cluster: fake_cluster.FakeCluster = field(default_factory=fake_cluster.FakeCluster)
    store: fake_store.FakeStore = field(default_factory=fake_store.FakeStore)
    watch: fake_store.FakeWatch = field(default_factory=fake_store.FakeWatch)
    clock: manual_clock.ManualClock = field(default_factory=manual_clock.ManualClock)
    missing: set[str] = field(default_factory=set)
    unreachable: set[str] = field(default_factory=set)
    weights: dict[str, llm_spec.Weights] = field(default_factory=dict)
    stamp_sources: source_sync.StampSources = source_sync.stamp_nothing
    plane: control_plane.ControlPlane = field(init=False)

    async def start(
        self, config: dict[str, Any] | None = None, restarts: int = 0
    ) -> tuple[str, ...]:
        """Begin, as at first or anew."""
        self.plane = control_plane.ControlPlane(
            control_plane.ControlPlaneParts(
                self.cluster,
                self.store,
                self.watch,
                self.state_dir,
                self.clock,
                self._check_uri,
                self._identify,
                OWNER_KEY,
                self.stamp_sources,
            ),
            restarts,
        )
        words = await self.plane.start(
            ENDPOINT, "" if config is None else orjson.dumps(config).decode()
        )
        await self.until(self.is_ready, "the mesh is ready")
        return words

    async def _check_uri(self, uri: str) -> str:
        if uri in self.missing:
            raise errors.InvalidRequest(f"there is nothing at {uri}")
        return "its server did not answer" if uri in self.unreachable else ""

    async def _identify(self, uri: str, revision: str) -> llm_spec.Weights | None:
        return self.weights.get(f"{uri}@{revision}" if revision else uri)

    @property
    def mesh(self) -> mesh.Mesh:
        return self.plane.controller._mesh

    def home(self, name: str) -> str:
        """Return the ready worker of a model or alias, which must have one."""
        worker_id = self.mesh.view().home(name)
        assert worker_id is not None, f"{name} has no home"
        return worker_id

    def declared(self, id_: model.ModelId) -> catalog.ModelDeclared:
        """Return the declaration of a model, which must have one."""
        declared = self.mesh.catalog.models.declared(id_)
        assert declared is not None, f"{id_} is not declared"
        return declared

    def is_ready(self) -> bool:
        workers, gates = self.mesh.workers.records.values(), self.mesh.gateways.records.values()
        states = [*(worker.state for worker in workers), *(gate.state for gate in gates)]
        return bool(gates) and all(state == "ready" for state in states)

    async def until(self, is_true: Callable[..., Any], what: str = "it") -> None:
        await support.wait_until_async(is_true, what=what)

    def client(self, owner_key: str = OWNER_KEY) -> httpx.AsyncClient:
        """Return a client of the mesh's owner, or of whoever has another key."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.plane.app),
            base_url="http://mesh",
            headers={paths.OWNER_HEADER: owner_key},
        )

    def names(self) -> list[str]:
        return sorted({id_.name for id_ in self.store.models})

    def knowing(self, name: str) -> list[str]:
        """The workers whose catalog has the model or alias."""
        return sorted(
            id_
            for id_, worker in self.cluster.workers.items()
            if worker.follower.catalog.versions(name) or worker.follower.catalog.alias(name)
        )


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage before its beginning."""
    new_stage = Stage(str(tmp_path))
    yield new_stage
    await new_stage.plane.close()


@pytest.fixture
async def stage(fresh: Stage) -> Stage:
    """A stage with CONFIG in force."""
    await fresh.start(CONFIG)
    return fresh


@pytest.fixture
async def http(stage: Stage) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the management API."""
    async with stage.client() as client:
        yield client
