from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import catalog, desired, model
from meshserve.testing import fake_store
from tests.core import world


def test_what_is_saved_is_there() -> None:
    store = fake_store.FakeStore()
    store.save(
        [
            catalog.ModelDeclared(world.spec("a")),
            desired.DesiredAlias("al", "a"),
            desired.Desired(document="{}"),
        ]
    )
    store.remember([world.measured("a", 5)])
    declared = catalog.ModelDeclared(world.spec("a"), world.measured("a", 5).measured)
    assert store.load().changes == (declared, desired.DesiredAlias("al", "a"))
    store.save([catalog.ModelWithdrawn(model.ModelId("a")), catalog.AliasCleared("al")])
    assert (store.load().changes, store.load().document) == ((), "{}")


def test_a_broken_store_keeps_nothing() -> None:
    store = fake_store.FakeStore()
    store.is_broken = True
    with pytest.raises(errors.Unavailable):
        store.save([catalog.ModelDeclared(world.spec("a"))])
    with pytest.raises(errors.Unavailable):
        store.remember([])
    assert store.load().changes == ()


async def test_a_watched_repository_says_what_it_was_told() -> None:
    watch, place = fake_store.FakeWatch(), desired.RepositorySettings("/r", watch=False)
    watch.put("/r", cluster_control.RepositoryScan((world.spec("a"),)))
    watch.put("/r", cluster_control.RepositoryScan(()))
    assert [len(scan.specs) async for scan in watch.scans(place, 1.0)] == [1]
    with pytest.raises(errors.InvalidRequest):
        await anext(watch.scans(place, 0.0))
