"""A mesh with a configuration, a repository and a model of the API, and requests to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshserve.core.values import desired, events, model
from tests.core import world

REPOSITORY = desired.RepositorySettings("/repo")
POOLS = (world.pool(workers=1), world.pool("gpu", 1))


def configured(
    *names: str, origin: model.Origin = model.FROM_CONFIG, **fields: Any
) -> tuple[model.ModelSpec, ...]:
    return tuple(world.spec(name, origin=origin, **fields) for name in names)


@pytest.fixture
def mesh_world() -> Iterator[world.World]:
    fresh = world.World()
    fresh.apply(
        pools=POOLS,
        models=configured("conf"),
        aliases=(desired.DesiredAlias("al", "conf", origin=model.FROM_CONFIG),),
        repositories=(REPOSITORY,),
    )
    fresh.feed(events.ModelsRegistered((world.spec("api"),)))
    yield fresh
    fresh.check()


def alias(name: str, target: str, **fields: Any) -> events.AliasRequested:
    return events.AliasRequested(
        desired.DesiredAlias(name, target, owner=fields.pop("owner", "")), **fields
    )
