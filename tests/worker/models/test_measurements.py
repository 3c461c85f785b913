from __future__ import annotations

from typing import Any

from meshserve.core.memory import copies, version_choice
from meshserve.core.values import model
from meshserve.worker.models import loader, measurements

ID = model.ModelId("m")


def measured(size_bytes: int, digest: str = "sha256:a") -> model.Measured:
    return model.Measured(digest, model.Footprint(size_bytes), 0.1)


def loaded(*, is_measured: bool) -> loader.LoadedCopy:
    nothing: Any = None
    return loader.LoadedCopy(nothing, model.Footprint(500), 0.1, None, is_measured=is_measured)


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


def test_a_load_that_measured_nothing_says_that_the_model_has_loaded() -> None:
    some = measurements.Measurements()
    copy = copies.Copy("k", model.Footprint(500), names={ID})
    some.note_load(copy, "sha256:a", loaded(is_measured=False))
    assert some.take() == {ID: model.Measured("sha256:a", model.Footprint(500), 0.0)}
    # A measurement says more, and replaces it, however near the guess was.
    some.note_load(copy, "sha256:a", loaded(is_measured=True))
    assert some.take() == {ID: model.Measured("sha256:a", model.Footprint(500), 0.1)}
    some.note_load(copy, "sha256:a", loaded(is_measured=False))
    assert some.take() == {}


def test_a_model_of_the_bytes_of_another_has_loaded_with_it() -> None:
    some = measurements.Measurements()
    copy = copies.Copy("k", model.Footprint(500), load_s=0.1)
    some.note_shared(ID, "sha256:a", None)
    some.note_shared(ID, "sha256:a", copy)
    assert some.take() == {}
    copy.is_measured = True
    some.note_shared(ID, "sha256:a", copy)
    assert some.take() == {ID: model.Measured("sha256:a", model.Footprint(500), 0.1)}
