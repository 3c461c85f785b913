from __future__ import annotations

from meshserve.core.values import desired
from tests.core import world


def test_worker_ids_are_the_same_at_each_start() -> None:
    assert (
        world.pool("gpu", 2).worker_ids() == ("gpu-0", "gpu-1") == world.pool("gpu", 2).worker_ids()
    )


def test_fewer_workers_keep_their_ids() -> None:
    assert set(world.pool(workers=1).worker_ids()) < set(world.pool(workers=3).worker_ids())


def test_a_pool_is_found_by_its_name() -> None:
    config = desired.Desired(pools=(world.pool(), world.pool("gpu")))
    assert config.pool("gpu") == world.pool("gpu")
    assert config.pool("none") is None


def test_the_models_of_a_repository_have_it_as_their_origin() -> None:
    assert str(desired.RepositorySettings("s3://models").origin) == "repository:s3://models"
