from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.core.values import catalog, model
from meshserve.worker.models import served_descriptions
from tests.core import world


def test_a_version_is_itself_and_a_name_without_one_is_all_of_them() -> None:
    served = catalog.Catalog(
        [
            *(catalog.ModelDeclared(world.spec("m", version)) for version in ("10", "9")),
            catalog.AliasSet("al", "m"),
        ]
    )
    every = [model.ModelId("m", "9"), model.ModelId("m", "10")]
    assert served_descriptions.ids(served, "m", "9") == every[:1]
    assert served_descriptions.ids(served, "m", "") == every
    assert served_descriptions.ids(served, "al", "") == every
    with pytest.raises(errors.ModelNotFound):
        served_descriptions.ids(served, "other", "")
