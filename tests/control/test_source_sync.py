from __future__ import annotations

import dataclasses
from collections.abc import Collection

import httpx

from meshserve.control import source_sync
from meshserve.core.values import model
from tests.control import conftest

CONF = model.ModelId("conf", "1")


class Files:
    """Local files that are overwritten: `settled` has the stamp of the content at each URI."""

    def __init__(self, **settled: str) -> None:
        self.settled = {f"/models/{name}": stamp for name, stamp in settled.items()}
        self.said: dict[str, str] = {}

    def __call__(
        self, known: Collection[source_sync.UriPair], *, is_said_whole: bool
    ) -> dict[source_sync.UriPair, str]:
        present = {**self.settled, **(self.said if is_said_whole else {})}
        stamped = {pair: f"{pair[0]}#{present[pair[0]]}" for pair in known if pair[0] in present}
        return {pair: uri for pair, uri in stamped.items() if uri != pair[1]}


def stamped(stage: conftest.Stage, id_: model.ModelId = CONF) -> str:
    declared = stage.plane.controller.view().models.declared(id_)
    assert declared is not None
    return declared.spec_to_fetch.uri


def of_worker(stage: conftest.Stage, worker: str) -> str:
    declared = stage.cluster.workers[worker].follower.catalog.declared(CONF)
    assert declared is not None
    return declared.spec_to_fetch.uri


async def test_the_configuration_s_files_are_declared_by_their_stamps(
    fresh: conftest.Stage,
) -> None:
    fresh.stamp_sources = Files(conf="a")
    await fresh.start(conftest.CONFIG)
    assert stamped(fresh) == "/models/conf#a"
    # A file that the controller's machine lacks has no stamp.
    assert stamped(fresh, model.ModelId("big", "1")) == "/models/big"


async def test_files_that_are_overwritten_are_declared_to_all_workers(
    fresh: conftest.Stage,
) -> None:
    files = fresh.stamp_sources = Files(conf="a")
    await fresh.start(conftest.CONFIG)
    files.settled["/models/conf"] = "b"
    await fresh.until(lambda: stamped(fresh) == "/models/conf#b")
    await fresh.until(
        lambda: {of_worker(fresh, f"default-{i}") for i in (0, 1)} == {"/models/conf#b"}
    )


async def test_the_same_configuration_and_a_load_take_what_is_there(
    fresh: conftest.Stage,
) -> None:
    files = fresh.stamp_sources = Files(conf="a")
    await fresh.start(conftest.CONFIG)
    files.said["/models/conf"] = "b"
    await fresh.plane.admin.apply(httpx.Request("POST", "http://m", json=conftest.CONFIG).content)
    assert stamped(fresh) == "/models/conf#b"
    files.said["/models/conf"] = "c"
    await fresh.plane.admin.load_own("conf")
    assert stamped(fresh) == "/models/conf#c"
    assert {of_worker(fresh, f"default-{i}") for i in (0, 1)} == {"/models/conf#c"}


async def test_a_registration_again_takes_what_is_there(fresh: conftest.Stage) -> None:
    files = fresh.stamp_sources = Files(m="a")
    await fresh.start(conftest.CONFIG)
    spec = fresh.plane.admin.spec({"name": "m", "uri": "/models/m"})
    await fresh.plane.admin.register(spec, is_replacing=False, is_owner=True)
    assert stamped(fresh, spec.id) == "/models/m#a"
    files.said["/models/m"] = "b"
    await fresh.plane.admin.register(spec, is_replacing=False, is_owner=True)
    assert stamped(fresh, spec.id) == "/models/m#b"
    # Another source is another content, and a pin is not.
    await fresh.plane.admin.pin("m", "", is_pinned=True)
    assert stamped(fresh, spec.id) == "/models/m#b"
    other = dataclasses.replace(spec, uri="/models/other")
    await fresh.plane.admin.register(other, is_replacing=True, is_owner=True)
    assert stamped(fresh, spec.id) == "/models/other"


async def test_a_controller_that_begins_again_knows_what_was_declared(
    fresh: conftest.Stage,
) -> None:
    files = fresh.stamp_sources = Files(conf="a")
    await fresh.start(conftest.CONFIG)
    # Half of it is written, so nothing has settled.
    files.settled.clear()
    await fresh.plane.close()
    await fresh.start(restarts=1)
    assert stamped(fresh) == "/models/conf#a"
