from __future__ import annotations

from collections.abc import Callable

import pytest

from meshserve import errors
from meshserve.core.values import catalog, catalog_sync, model
from meshserve.worker.models import earlier_contents, model_host
from tests import support
from tests.worker import helpers
from tests.worker.models import test_version_leases as leases

NOW, BEFORE = "m/now", "m/before"
MEASURED = model.Measured("sha256:a", model.Footprint(1 << 20), 0.1)


def declare(
    host: model_host.ModelHost,
    storage: helpers.FakeStorage,
    measured: model.Measured | None = MEASURED,
    uri: str = NOW,
) -> None:
    spec = helpers.spec("m", "/m")
    helpers.apply(host, catalog.ModelDeclared(spec, measured, str(storage.folder / uri)))


@pytest.fixture
async def host(
    hosting: Callable[..., model_host.ModelHost], storage: helpers.FakeStorage
) -> model_host.ModelHost:
    """A host that has just started, and the broken file of a model that was good before."""
    storage.put(NOW, leases.BROKEN)
    storage.put(BEFORE)
    storage.earlier[str(storage.folder / NOW)] = str(storage.folder / BEFORE)
    return hosting()


async def test_what_a_broken_model_was_before_answers_after_a_restart(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage)
    for version in ("", "1", ""):
        assert await leases.answer(host, version) == (2.0, "1")
    assert "SyntaxError" in leases.failure(host)
    assert storage.fetches[str(storage.folder / NOW)] <= 3


async def test_a_repositorys_model_was_what_its_stamped_uri_was(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    spec = helpers.spec("m", str(storage.folder / NOW))
    helpers.apply(host, catalog.ModelDeclared(spec, MEASURED))
    assert await leases.answer(host) == (2.0, "1")


async def test_a_mended_model_answers_instead_of_what_it_was(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage)
    assert await leases.answer(host) == (2.0, "1")
    storage.put("m/mended", leases.times(3))
    declare(host, storage, uri="m/mended")
    await support.wait_until_async(
        lambda: host.residency.find_ready(model.ModelId("m")) is not None
    )
    assert await leases.answer(host) == (3.0, "1")


async def test_a_model_of_another_file_answers_from_the_one_before(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.earlier.clear()
    spec = helpers.spec("m", "/m")
    now, before = (str(storage.folder / uri) for uri in (NOW, BEFORE))
    helpers.apply(host, catalog.ModelDeclared(spec, None, now, before))
    assert await leases.answer(host) == (2.0, "1")


async def test_what_has_loaded_here_comes_before_what_the_controller_knows(
    storage: helpers.FakeStorage,
) -> None:
    # The controller hears of a load a second later: here it knows of the first content alone.
    follower, id_ = catalog_sync.CatalogFollower(), model.ModelId("m")
    known = earlier_contents.EarlierContents(storage, follower)
    spec = helpers.spec("m", "/m")

    async def find() -> str:
        known.forget(id_)
        declared = known.declared(previous) if (previous := await known.find(id_)) else None
        return declared.stamped_uri if declared else ""

    follower.catalog.apply(catalog.ModelDeclared(spec, None, "/newer", "/first"))
    assert await find() == "/first"
    known.note_loaded([id_])
    assert await find() == "", "it can answer, and an older one may not"
    follower.catalog.apply(catalog.ModelDeclared(spec, None, "/broken", "/first"))
    assert await find() == "/newer"
    follower.catalog.apply(catalog.ModelWithdrawn(id_))
    known.forget(id_)
    follower.catalog.apply(catalog.ModelDeclared(spec, None, "/broken"))
    assert await find() == "", "another model of this name"


async def test_a_model_that_never_loaded_is_not_what_its_file_was(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    declare(host, storage, measured=None)
    with pytest.raises(errors.LoadFailed, match="SyntaxError"):
        await leases.answer(host)


async def test_a_model_without_a_good_content_tells_the_fault_of_the_present_one(
    host: model_host.ModelHost, storage: helpers.FakeStorage
) -> None:
    storage.put(BEFORE, "def nor_this(")
    declare(host, storage)
    for _ in range(2):
        with pytest.raises(errors.LoadFailed, match=r"line 1|SyntaxError"):
            await leases.answer(host)
    declare(host, storage, uri="m/nothing")
    with pytest.raises(errors.LoadFailed, match="there is nothing"):
        await leases.answer(host)
