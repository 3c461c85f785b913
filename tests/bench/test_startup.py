from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import demo, startup

FAST, SLOW = startup.Started(4.0, 5.0), startup.Started(10.0, 11.0)


def test_the_middle_of_several_starts() -> None:
    assert startup.middle([SLOW, FAST, startup.Started(6.0, 6.5)]) == startup.Started(6.0, 6.5)


@pytest.mark.parametrize(("quickstart", "is_reached"), [(FAST, True), (SLOW, False)])
def test_the_quick_start_is_held_against_its_target(quickstart: Any, is_reached: Any) -> None:
    measured = startup.summarise(
        [{startup.RAY: FAST, startup.QUICKSTART: quickstart}], is_quick=False
    )
    assert [claim.is_reached for claim in measured.claims] == [is_reached]


@pytest.mark.parametrize(("ray_s", "is_reached"), [(5.0, True), (1.0, False)])
def test_the_quick_version_is_held_against_ray_alone(ray_s: Any, is_reached: Any) -> None:
    measured = startup.summarise(
        [{startup.RAY: startup.Started(ray_s, ray_s), startup.TINY: FAST}], is_quick=True
    )
    assert [claim.is_reached for claim in measured.claims] == [is_reached]


def test_the_quick_start_is_the_readmes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "train", lambda _console, place: place.models.mkdir())
    document, model = startup.quickstart(tmp_path)
    declared = yaml.safe_load(demo.QUICKSTART.read_text())
    assert document["pools"] == declared["pools"]
    assert [entry["name"] for entry in document["models"]] == [
        entry["name"] for entry in declared["models"]
    ]
    assert (model.name, len(model.row)) == ("digits", 64)


def test_one_tiny_model_is_one_model(tmp_path: Path) -> None:
    document, model = startup.one_tiny(tmp_path)
    assert [entry["name"] for entry in document["models"]] == [model.name] == ["tiny"]


@pytest.mark.edge
@pytest.mark.slow
def test_ray_alone_is_waited_for(tmp_path: Path) -> None:
    assert startup.ray_alone(tmp_path / "ray").answer_s > 0.1
