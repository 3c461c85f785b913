from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import catalog, catalog_sync, model
from tests.core import world

CHANGES = st.one_of(
    st.builds(
        lambda name, uri: catalog.ModelDeclared(world.spec(name, uri=uri)),
        st.sampled_from("abc"),
        st.sampled_from("xy"),
    ),
    st.builds(lambda name: catalog.ModelWithdrawn(model.ModelId(name)), st.sampled_from("abc")),
    st.builds(catalog.AliasSet, st.sampled_from("pq"), st.sampled_from("abc")),
    st.builds(catalog.AliasCleared, st.sampled_from("pq")),
)


def declared(*names: str) -> list[catalog.Change]:
    return [catalog.ModelDeclared(world.spec(name)) for name in names]


def full(changes: Iterable[catalog.Change], revision: int = 0) -> tuple[catalog_sync.SyncStep, ...]:
    """Return the steps of a full catalog for a worker at `revision`."""
    return catalog_sync.full_steps(catalog_sync.split_changes(changes), revision)


def follower_of(*steps: catalog_sync.SyncStep) -> catalog_sync.CatalogFollower:
    """Return a new worker's catalog after these steps."""
    follower = catalog_sync.CatalogFollower()
    for step in steps:
        follower.apply(step)
    return follower


def test_the_catalog_is_empty_before_the_last_step_of_a_full_one() -> None:
    first, *rest = full(declared(*(f"m{n}" for n in range(2500))))
    follower = follower_of(first)
    assert (len(follower.catalog), follower.is_complete, len(rest)) == (0, False, 2)
    for step in rest:
        follower.apply(step)
    assert (len(follower.catalog), follower.is_complete, follower.revision) == (2500, True, 3)


def test_an_empty_full_catalog_is_complete() -> None:
    assert follower_of(*full([])).is_complete


def test_a_step_returns_its_changes() -> None:
    follower = follower_of(*full(declared("a")))
    parts = catalog_sync.split_changes([catalog.ModelWithdrawn(model.ModelId("a"))])
    (step,) = catalog_sync.incremental_steps(parts, 1)
    assert follower.apply(step) == step.changes
    assert len(follower.catalog) == 0


def test_a_step_after_a_missed_one_is_refused() -> None:
    follower = follower_of(*full(declared("a")))
    with pytest.raises(catalog_sync.MissedStep, match="step 3 can't follow revision 1"):
        follower.apply(catalog_sync.SyncStep(3, tuple(declared("b"))))
    assert (follower.revision, len(follower.catalog)) == (1, 1)


def test_a_step_before_any_full_catalog_is_refused() -> None:
    with pytest.raises(catalog_sync.MissedStep):
        follower_of(catalog_sync.SyncStep(1, tuple(declared("a"))))


def test_a_second_full_catalog_returns_only_the_differences() -> None:
    follower = follower_of(*full(declared("a", "b")))
    (step,) = full(declared("b", "c"), 1)
    assert set(map(str, follower.apply(step))) == {
        str(catalog.ModelWithdrawn(model.ModelId("a"))),
        str(declared("c")[0]),
    }


def test_the_old_catalog_serves_until_the_last_step_of_the_new_one() -> None:
    follower = follower_of(*full(declared("old")))
    first, last = full(declared(*(f"m{n}" for n in range(1500))), 1)
    follower.apply(first)
    assert follower.catalog.versions("old")
    follower.apply(last)
    assert not follower.catalog.versions("old")


@given(st.lists(CHANGES), st.lists(CHANGES))
def test_differences_lead_from_one_catalog_to_the_other(
    before: list[catalog.Change], after: list[catalog.Change]
) -> None:
    one, other = catalog.Catalog(before), catalog.Catalog(after)
    for change in list(catalog_sync.difference(one, other)):
        one.apply(change)
    assert list(catalog_sync.difference(one, other)) == []
    assert set(map(str, one.changes())) == set(map(str, other.changes()))


def test_specs_share_a_copy_if_only_origin_and_pin_differ() -> None:
    assert catalog_sync.can_share_copy(
        world.spec("a"), world.spec("a", origin=model.FROM_CONFIG, pinned=True)
    )
    assert not catalog_sync.can_share_copy(world.spec("a"), world.spec("a", uri="/elsewhere"))
