from __future__ import annotations

from meshserve.core.mesh import catalog_distribution
from meshserve.core.values import model


def test_footprints_differ_by_more_than_measuring_does() -> None:
    known = model.Measured("a", model.Footprint(100, 0), 1.0)

    def is_known(host_bytes: int, gpu_bytes: int) -> bool:
        measured = model.Measured("a", model.Footprint(host_bytes, gpu_bytes), 1.0)
        return measured.is_known(known, catalog_distribution.NOISE)

    assert is_known(125, 0)
    assert not is_known(126, 0)
    assert not is_known(100, 1)
