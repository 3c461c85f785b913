"""What requests for aliases change, or the class of the error that refuses them."""

from __future__ import annotations

import pytest

from meshserve.core.catalog import admin_requests, alias_requests
from meshserve.core.values import desired, events, model
from tests.core import world
from tests.core.catalog import conftest


def test_a_new_alias_means_its_model_at_once(mesh_world: world.World) -> None:
    assert mesh_world.feed(conftest.alias("mine", "api", is_gradual=True)) == (
        "alias mine means api",
    )


def test_an_alias_that_is_set_gradually_moves_once_its_target_answers(
    mesh_world: world.World,
) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("next"),)))
    mesh_world.feed(conftest.alias("mine", "api"))
    mesh_world.feed(conftest.alias("mine", "next", is_gradual=True))
    assert (mesh_world.saved_aliases["mine"].name, mesh_world.saved_aliases["mine"].target) == (
        "api",
        "next",
    )
    mesh_world.settle()
    assert (mesh_world.saved_aliases["mine"].name, mesh_world.saved_aliases["mine"].target) == (
        "next",
        "",
    )


def test_an_alias_whose_target_fails_stays_and_says_why(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("next"),)))
    mesh_world.feed(conftest.alias("mine", "api"))
    mesh_world.failing_loads = {"next"}
    mesh_world.feed(conftest.alias("mine", "next", is_gradual=True))
    mesh_world.perform_all()
    assert mesh_world.saved_aliases["mine"] == desired.DesiredAlias(
        "mine", "api", target="next", failure="it is broken"
    )


def test_an_alias_that_moves_can_be_sent_back(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("next"),)))
    mesh_world.feed(conftest.alias("mine", "api"))
    mesh_world.feed(conftest.alias("mine", "next", is_gradual=True))
    mesh_world.feed(conftest.alias("mine", "api", is_gradual=True))
    mesh_world.settle()
    assert mesh_world.saved_aliases["mine"] == desired.DesiredAlias("mine", "api")


@pytest.mark.parametrize(
    ("admin_request", "refusal"),
    [
        (conftest.alias("new", "none"), "ModelNotFound"),
        (conftest.alias("stats", "api"), "InvalidRequest"),
        (conftest.alias("new", "api", is_update_only=True), "ModelNotFound"),
        (conftest.alias("new", "api", expected="conf"), "Conflict"),
        (conftest.alias("new", "api", expected="api"), ""),
        (conftest.alias("mine", "conf", expected="other"), "Conflict"),
        (conftest.alias("mine", "conf", expected="api"), ""),
        (conftest.alias("mine", "api", expected="other"), ""),
        (conftest.alias("mine", "conf", owner="somebody"), "AlreadyExists"),
        (conftest.alias("al", "api"), "AlreadyExists"),
        (conftest.alias("conf", "api"), "AlreadyExists"),
    ],
)
def test_an_alias_is_set_under_conditions(
    mesh_world: world.World, admin_request: events.AliasRequested, refusal: str
) -> None:
    mesh_world.feed(conftest.alias("mine", "api", owner="me"))
    assert mesh_world.refused(admin_request) == refusal


@pytest.mark.parametrize(
    ("admin_request", "refusal"),
    [
        (events.AliasRemovalRequested("none"), "ModelNotFound"),
        (events.AliasRemovalRequested("al"), "Conflict"),
        (events.AliasRemovalRequested("mine", "somebody"), "AlreadyExists"),
        (events.AliasRemovalRequested("mine", "me"), ""),
        (events.AliasRemovalRequested("mine"), ""),
    ],
)
def test_an_alias_is_cleared_under_conditions(
    mesh_world: world.World, admin_request: events.AliasRemovalRequested, refusal: str
) -> None:
    mesh_world.feed(conftest.alias("mine", "api", owner="me"))
    assert mesh_world.refused(admin_request) == refusal


def registered_for_alias(name: str) -> events.AliasRequested:
    return conftest.alias(
        "mine", name, is_gradual=True, spec=world.spec(name, origin=model.FROM_ALIAS)
    )


def test_what_was_registered_for_an_alias_goes_with_it(mesh_world: world.World) -> None:
    mesh_world.feed(registered_for_alias("v1"))
    mesh_world.feed(events.AliasRemovalRequested("mine"))
    assert model.ModelId("v1") not in mesh_world.saved_models


def test_what_was_registered_for_an_alias_goes_when_the_alias_has_moved(
    mesh_world: world.World,
) -> None:
    mesh_world.feed(registered_for_alias("v1"))
    mesh_world.feed(registered_for_alias("v2"))
    assert model.ModelId("v1") in mesh_world.saved_models
    mesh_world.settle()
    assert model.ModelId("v1") not in mesh_world.saved_models
    assert model.ModelId("v2") in mesh_world.saved_models


def test_what_another_alias_needs_stays(mesh_world: world.World) -> None:
    mesh_world.feed(registered_for_alias("v1"))
    mesh_world.feed(conftest.alias("other", "v1"))
    mesh_world.feed(events.AliasRemovalRequested("mine"))
    assert model.ModelId("v1") in mesh_world.saved_models


def test_a_move_that_ends_for_an_alias_with_another_target_changes_nothing(
    mesh_world: world.World,
) -> None:
    mesh_world.feed(conftest.alias("mine", "api"))
    ended = alias_requests.AliasMoveEnded("mine", "conf")
    assert admin_requests.decide(mesh_world.mesh.catalog, ended, {}).changes == ()
    ended = alias_requests.AliasMoveEnded("none", "conf")
    assert admin_requests.decide(mesh_world.mesh.catalog, ended, {}).changes == ()


def test_a_target_that_is_asked_for_twice_is_one_move(mesh_world: world.World) -> None:
    mesh_world.feed(conftest.alias("mine", "api"))
    mesh_world.feed(conftest.alias("mine", "conf", is_gradual=True))
    assert mesh_world.feed(conftest.alias("mine", "conf", is_gradual=True)) == ()
