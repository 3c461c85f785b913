"""A control plane on fakes, its clock in the test's hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import httpx
import orjson
import pytest

from meshserve.control import control_plane
from meshserve.core.values import model
from meshserve.testing import fake_cluster, fake_store, manual_clock
from tests import support

ENDPOINT = model.Endpoint("n1", "127.0.0.1", 7000, "/run/controller.sock")
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
    plane: control_plane.ControlPlane = field(init=False)

    async def start(self, config=None, restarts=0):
        """Begin, as at first or anew."""
        self.plane = control_plane.ControlPlane(
            control_plane.ControlPlaneParts(
                self.cluster, self.store, self.watch, self.state_dir, self.clock
            ),
            restarts,
        )
        words = await self.plane.start(
            ENDPOINT, "" if config is None else orjson.dumps(config).decode()
        )
        await self.until(self.is_ready, "the mesh is ready")
        return words

    @property
    def mesh(self):
        return self.plane.controller._mesh

    def is_ready(self):
        workers, gates = self.mesh.workers.records.values(), self.mesh.gateways.records.values()
        return bool(gates) and all(item.state == "ready" for item in (*workers, *gates))

    async def until(self, is_true, what="it"):
        await support.wait_until_async(is_true, what=what)

    def client(self):
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.plane.app), base_url="http://mesh"
        )

    def names(self):
        return sorted({id_.name for id_ in self.store.models})

    def knowing(self, name):
        """The workers whose catalog has the model or alias."""
        return sorted(
            id_
            for id_, worker in self.cluster.workers.items()
            if worker.follower.catalog.has_name(name)
        )


@pytest.fixture
async def fresh(tmp_path):
    """A stage before its beginning."""
    new_stage = Stage(str(tmp_path))
    yield new_stage
    await new_stage.plane.close()


@pytest.fixture
async def stage(fresh):
    """A stage with CONFIG in force."""
    await fresh.start(CONFIG)
    return fresh


@pytest.fixture
async def http(stage):
    """A client of the management API."""
    async with stage.client() as client:
        yield client
