from __future__ import annotations

import dataclasses

import httpx
import pytest

from meshserve import errors
from meshserve.control import repository_sync
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import desired, model
from tests.control import conftest
from tests.core import world

WATCHED = {**conftest.CONFIG, "repositories": [{"path": "/r"}]}


def scan(*names: str, problems: tuple[str, ...] = ()) -> cluster_control.RepositoryScan:
    specs = (
        dataclasses.replace(world.spec(name), origin=model.Origin.parse("repository:/r"))
        for name in names
    )
    return cluster_control.RepositoryScan(tuple(specs), problems)


async def test_what_a_repository_holds_is_served(fresh: conftest.Stage) -> None:
    await fresh.start(WATCHED)
    fresh.watch.put("/r", scan("one", "two"))
    await fresh.until(lambda: fresh.names() == ["big", "conf", "one", "two"])
    fresh.watch.put("/r", scan("two"))
    await fresh.until(lambda: fresh.names() == ["big", "conf", "two"])
    await fresh.until(lambda: fresh.knowing("two") == ["default-0", "default-1"])


async def test_problems_of_a_repository_are_logged(
    fresh: conftest.Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await fresh.start(WATCHED)
    fresh.watch.put("/r", scan("one", problems=("/r/two: no model in it",)))
    await fresh.until(lambda: "repository /r: /r/two: no model in it" in caplog.text)


async def test_the_status_tells_problems_as_long_as_they_last_and_the_log_once(
    fresh: conftest.Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await fresh.start(WATCHED)

    def problems() -> tuple[int, list[str]]:
        (repository,) = fresh.plane.status()["repositories"]
        return repository["models"], repository["problems"]

    assert problems() == (0, [])
    taken = "model 'conf:1' of repository /r is not served: the name belongs to the configuration"
    for names in (("one", "conf"), ("one", "two", "conf")):
        fresh.watch.put("/r", scan(*names, problems=("three: no model in it",)))
        await fresh.until(lambda names=names: problems()[0] == len(names) - 1)
        assert problems()[1] == [taken, "three: no model in it"]
    assert caplog.text.count("three: no model in it") == 1
    fresh.watch.put("/r", scan("one"))
    await fresh.until(lambda: problems() == (1, []))


async def test_a_repository_that_comes_with_a_new_configuration_is_followed(
    stage: conftest.Stage, http: httpx.AsyncClient
) -> None:
    stage.watch.put("/r", scan("one"))
    await http.post("/mesh/v1/apply", json=WATCHED)
    await stage.until(lambda: "one" in stage.names())
    await http.post("/mesh/v1/apply", json=conftest.CONFIG)
    assert stage.names() == ["big", "conf"]
    stage.watch.put("/r", scan("one", "two"))
    await stage.clock.advance(1.0)
    assert stage.names() == ["big", "conf"]


async def test_a_repository_is_followed_by_a_controller_that_begins_again(
    fresh: conftest.Stage,
) -> None:
    await fresh.start(WATCHED)
    await fresh.plane.close()
    await fresh.start()
    fresh.watch.put("/r", scan("one"))
    await fresh.until(lambda: model.ModelId("one") in fresh.store.models)


async def test_a_repository_that_fails_is_scanned_again(
    fresh: conftest.Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: float | desired.RepositorySettings) -> None:
        raise errors.LoadFailed("the disk went away")

    with monkeypatch.context() as patched:
        patched.setattr(fresh.watch, "scans", failing)
        await fresh.start(WATCHED)
        await fresh.until(lambda: "the disk went away" in caplog.text)
    fresh.watch.put("/r", scan("one"))
    await fresh.clock.advance(repository_sync.RETRY_S + 0.1)
    await fresh.until(lambda: "one" in fresh.names())


async def test_a_scan_that_can_t_be_saved_is_repeated(
    fresh: conftest.Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await fresh.start(WATCHED)
    fresh.store.is_broken = True
    fresh.watch.put("/r", scan("one"))
    await fresh.until(lambda: "the registry is broken" in caplog.text)
    fresh.store.is_broken = False
    fresh.watch.put("/r", scan("one"))
    await fresh.clock.advance(repository_sync.RETRY_S + 0.1)
    await fresh.until(lambda: "one" in fresh.names())


async def test_a_scan_begins_with_what_the_registry_knows_of_the_repository(
    fresh: conftest.Stage,
) -> None:
    await fresh.start(WATCHED)
    fresh.watch.put("/r", scan("one", "two"))
    await fresh.until(lambda: "one" in fresh.names())
    (one,) = fresh.plane.admin.specs("one")
    await fresh.plane.admin.override("one", (dataclasses.replace(one, uri="/sent"),))
    await fresh.plane.close()
    await fresh.start()
    await fresh.until(lambda: len(fresh.watch.known["/r"]) == 2)
    assert {spec.uri for spec in fresh.watch.known["/r"]} == {"/models/one/1", "/models/two/1"}


async def test_a_repository_that_is_not_watched_is_scanned_when_a_model_is_looked_at(
    fresh: conftest.Stage,
) -> None:
    config = {**conftest.CONFIG, "repositories": [{"path": "/r", "watch": False}]}
    await fresh.start(config)
    fresh.watch.put("/r", scan("one"))
    await fresh.until(lambda: "one" in fresh.names())
    fresh.watch.put("/r", scan("one", "two"))
    async with fresh.client() as http:
        assert (await http.post("/v2/repository/models/two/load")).status_code == 200
    assert "two" in fresh.names()
