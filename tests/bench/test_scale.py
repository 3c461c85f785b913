from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench import scale
from meshserve.core.values import events

PHASE = scale.Phase("register", 2_000, 10, 1.0, 5.0)


@pytest.fixture(scope="module")
def scaled() -> Any:
    return scale.scale(Console(quiet=True), models=2_000, workers=20)


def test_every_phase_ends_with_everything_as_it_should_be(scaled: Any) -> None:
    names = [phase.name for phase in scaled.phases]
    assert names[:3] == ["start", "register", "first reports"]
    assert all(phase.events and phase.seconds for phase in scaled.phases)


def test_growth_moves_models_to_the_new_workers_and_loss_moves_no_others(scaled: Any) -> None:
    lost, grown = scaled.moved.values()
    assert lost == 0
    assert 0.05 < grown < 0.15


def test_the_mesh_itself_finds_nothing_wrong() -> None:
    world = scale.World()
    world.phase(
        "start",
        [
            events.Restored(is_config_coming=True),
            events.AdminRequested("start", events.ConfigApplied(scale.wanted(3))),
        ],
    )
    world.phase("register", scale.registrations(1_500))
    world.mesh.check()
    assert len(world.mesh.catalog.models) == 1_500
    assert set(scale.homes_of(world, 500)[0].tolist()) == {"default-0", "default-1", "default-2"}


def test_imbalance_is_the_busiest_against_the_mean() -> None:
    assert scale.imbalance(np.array(["a", "a", "b"]), np.array([1.0, 2.0, 1.0])) == 1.5
    assert scale.by_worker(np.array(["b", "a", "b"])) == {"a": [1], "b": [0, 2]}


@pytest.mark.parametrize(("homes_per_s", "missed"), [(60_000.0, 0), (40_000.0, 1)])
def test_targets_are_held(homes_per_s: Any, missed: Any) -> None:
    result = scale.Scaled((PHASE,), 1_000.0, homes_per_s, {"x": 0.1}, {"models": 1.2})
    claims = scale.summarise(result, {}, is_quick=False).claims
    assert [claim.is_reached for claim in claims].count(False) == missed
