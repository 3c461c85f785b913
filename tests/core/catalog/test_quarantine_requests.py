from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.catalog import catalog_index, quarantine_requests
from meshserve.core.values import catalog, containment, events, model
from tests.core import world

A, B = model.ModelId("a"), model.ModelId("b", "2")


@pytest.fixture
def index() -> catalog_index.CatalogIndex:
    fresh = catalog_index.CatalogIndex()
    for id_ in (A, B):
        fresh.apply(catalog.ModelDeclared(world.spec(*id_)))
    return fresh


def convict(index: catalog_index.CatalogIndex, id_: model.ModelId, reason: str = "died") -> int:
    """Convict copy `k` of a model; return how many changes that takes."""
    request = quarantine_requests.CopyConvicted("k", id_, reason)
    changes = quarantine_requests.decide(index, request).changes
    for change in changes:
        index.apply(change)
    return len(changes)


def test_the_same_conviction_changes_nothing_and_another_model_is_added(
    index: catalog_index.CatalogIndex,
) -> None:
    assert (convict(index, A), convict(index, A), convict(index, B, "later")) == (1, 0, 1)
    assert index.models.quarantines["k"] == containment.CopyQuarantined("k", (A, B), "died")


def test_a_release_ends_the_quarantine_for_every_model_with_the_copy(
    index: catalog_index.CatalogIndex,
) -> None:
    convict(index, A)
    convict(index, B)
    released = quarantine_requests.decide(index, events.ReleaseRequested("b"))
    assert released.changes == (containment.QuarantineEnded("k"),)
    assert released.words == ("model a:1, b:2 released",)


def test_a_release_of_what_is_not_held_is_refused(index: catalog_index.CatalogIndex) -> None:
    convict(index, B)
    with pytest.raises(errors.ModelNotFound, match="'c' is not registered"):
        quarantine_requests.decide(index, events.ReleaseRequested("c"))
    for name, version in (("a", ""), ("b", "1")):
        with pytest.raises(errors.Conflict, match="is not in quarantine"):
            quarantine_requests.decide(index, events.ReleaseRequested(name, version))
