"""Two controllers on one database: SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshserve import registry
from meshserve.core.interfaces import registry_store
from meshserve.core.values import catalog, model, registry_contents
from tests.core import world

CHANGES = (catalog.ModelDeclared(world.spec("m")),)


@pytest.fixture
def other(url: str) -> Iterator[registry.SqlRegistry]:
    opened = registry.SqlRegistry(url)
    yield opened
    opened.close()


def take(store: registry.SqlRegistry, holder: str = "new") -> bool:
    return store.take_lease(holder, f"the {holder} mesh", store.read_lease())


def test_a_registry_says_who_writes_it(
    sql_registry: registry.SqlRegistry, other: registry.SqlRegistry
) -> None:
    lease = other.read_lease()
    assert (lease.holder, lease.about, lease.epoch) == ("test", "a test", 1)
    sql_registry.renew_lease()
    assert other.read_lease().beats > lease.beats
    sql_registry.release_lease()
    assert (other.read_lease().holder, other.read_lease().epoch) == ("", 1)


def test_every_write_fails_once_another_has_the_lease(
    sql_registry: registry.SqlRegistry, other: registry.SqlRegistry
) -> None:
    sql_registry.save(CHANGES)
    assert take(other)
    lease = other.read_lease()
    for write in (
        lambda: sql_registry.save([catalog.ModelWithdrawn(model.ModelId("m"))]),
        lambda: sql_registry.remember([world.measured("m", 5)]),
        sql_registry.renew_lease,
        sql_registry.settle,
    ):
        with pytest.raises(registry_store.LeaseLost, match=r"the new mesh .*epoch 2.* epoch 1"):
            write()
    sql_registry.release_lease()
    assert other.read_lease() == lease
    assert other.load().changes == CHANGES


def test_who_never_took_the_lease_writes_nothing(
    sql_registry: registry.SqlRegistry, other: registry.SqlRegistry
) -> None:
    with pytest.raises(registry_store.LeaseLost, match="a test"):
        other.save(CHANGES)
    sql_registry.release_lease()
    with pytest.raises(registry_store.LeaseLost, match="another controller"):
        other.save(CHANGES)
    with pytest.raises(registry_store.LeaseLost):
        sql_registry.save(CHANGES)
    assert sql_registry.load().changes == ()


def test_a_lease_that_has_changed_is_not_taken(
    sql_registry: registry.SqlRegistry, other: registry.SqlRegistry
) -> None:
    seen = other.read_lease()
    sql_registry.renew_lease()
    assert not other.take_lease("new", "the new mesh", seen)
    assert other.read_lease().holder == "test"
    # A lease that nobody ever took is one that is taken once, too.
    assert not other.take_lease("new", "the new mesh", registry_contents.WriteLease())
    sql_registry.save(CHANGES)


def test_of_two_that_saw_the_same_lease_one_has_it(
    sql_registry: registry.SqlRegistry, other: registry.SqlRegistry
) -> None:
    seen = other.read_lease()
    taken = [store.take_lease("n", "n", seen) for store in (sql_registry, other)]
    assert taken == [True, False]


def test_a_save_is_settled_by_what_the_registry_has(sql_registry: registry.SqlRegistry) -> None:
    sql_registry.save(CHANGES)
    # Nothing was saved after the last one whose outcome is known.
    assert not sql_registry.settle()
    sql_registry._saves -= 1
    assert sql_registry.settle()
    assert not sql_registry.settle()


def test_a_registry_of_an_earlier_version_gets_its_lease(
    sql_registry: registry.SqlRegistry, other: registry.SqlRegistry
) -> None:
    with sql_registry._database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE meshserve_lease")
    assert other.read_lease() == registry_contents.WriteLease()
    assert take(other)
    other.save(CHANGES)
