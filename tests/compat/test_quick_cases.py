"""Every case of the peers' clients that need no environment of their own, against one mesh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compat import cases, catalogue, mesh, world

# Not `slow` for each alone: the mesh, and the libraries of all clients, take most of the minute.
pytestmark = [pytest.mark.edge, pytest.mark.slow]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[world.World]:
    with mesh.serving(tmp_path_factory.mktemp("compat")) as started:
        yield started


@pytest.mark.parametrize("case", catalogue.quick_cases(), ids=lambda case: case.title)
def test_a_client_gets_what_its_own_server_would_give(asked: world.World, case: cases.Case) -> None:
    assert cases.outcome_of(case, asked).failure == ""
