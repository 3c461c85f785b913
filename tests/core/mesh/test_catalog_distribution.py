from __future__ import annotations

from meshserve.core.mesh import catalog_distribution
from meshserve.core.values import model


def test_footprints_differ_by_more_than_measuring_does() -> None:
    assert not catalog_distribution.is_remeasured(model.Footprint(100, 0), model.Footprint(125, 0))
    assert catalog_distribution.is_remeasured(model.Footprint(100, 0), model.Footprint(126, 0))
    assert catalog_distribution.is_remeasured(model.Footprint(100, 0), model.Footprint(100, 1))
