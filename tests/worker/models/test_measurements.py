from __future__ import annotations

from meshserve.core.memory import version_choice
from meshserve.core.values import model
from meshserve.worker.models import measurements

ID = model.ModelId("m")


def measured(size_bytes: int, digest: str = "sha256:a") -> model.Measured:
    return model.Measured(digest, model.Footprint(size_bytes), 0.1)


def test_what_was_measured_is_told_once() -> None:
    some = measurements.Measurements()
    some.remember([ID], measured(1000))
    assert some.take() == {ID: measured(1000)}
    some.remember([ID], measured(1010))
    assert some.take() == {}
    some.remember([ID], measured(1000, "sha256:b"))
    assert some.take() == {ID: measured(1000, "sha256:b")}


def test_what_a_model_was_before_its_replacement_is_of_no_interest() -> None:
    some = measurements.Measurements()
    some.remember([version_choice.previous_id(ID)], measured(1000))
    assert some.take() == {}


def test_a_model_that_is_declared_anew_is_measured_anew() -> None:
    some = measurements.Measurements()
    some.remember([ID], measured(1000))
    assert some.find(ID) == measured(1000)
    some.forget(ID)
    assert some.find(ID) is None
