from __future__ import annotations

from typing import get_args

import pytest

from meshserve.core.mesh import mesh
from meshserve.core.values import events

HANDLED = mesh.Mesh()


@pytest.mark.parametrize("kind", get_args(events.Event), ids=lambda kind: kind.__name__)
def test_the_mesh_knows_every_event(kind):
    assert (kind in HANDLED._wishes) != (kind in HANDLED._facts)


@pytest.mark.parametrize("kind", get_args(events.AdminRequest), ids=lambda kind: kind.__name__)
def test_a_wish_is_decided_as_one(kind):
    assert kind in HANDLED._wishes
