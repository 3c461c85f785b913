from __future__ import annotations

import pytest

from meshserve.control import mesh_views
from meshserve.core.values import desired, events, model, reports
from tests.core import world

A, B = model.ModelId("a"), model.ModelId("b")


@pytest.fixture
def made():
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2),))
    fresh.feed(events.ModelsRegistered(tuple(world.spec(name) for name in ("a", "b", "c"))))
    return fresh


def say(made, worker_id, *copies, **fields):
    said = reports.WorkerReport(worker_id, 1, "n1", "ready", 99, copies=copies, **fields)
    made.feed(events.WorkerReported(said, 0))


def names(made, **choice):
    return [
        each["name"]
        for each in mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(**choice))["models"]
    ]


def test_the_best_copy_tells_a_models_state(made):
    say(made, "default-0", reports.CopyReport(A, "failed", "it is corrupt", requests=2))
    say(made, "default-1", reports.CopyReport(A, "ready", footprint=model.Footprint(5), requests=3))
    (found,) = mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(prefix="a"))["models"]
    assert (found["state"], found["worker"], found["requests"], found["reason"]) == (
        "ready",
        "default-1",
        5,
        "",
    )
    assert found["footprint_bytes"] == {"host": 5, "gpu": 0}


def test_a_model_that_is_absent_takes_what_it_took_last(made):
    say(made, "default-0", measured=(world.measured("a", 7),))
    assert (
        mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(prefix="a"))["models"][0][
            "footprint_bytes"
        ]["host"]
        == 7
    )


def test_models_are_counted_once_wherever_they_are(made):
    say(made, "default-0", reports.CopyReport(A, "ready"), reports.CopyReport(B, "loading"))
    say(made, "default-1", reports.CopyReport(A, "failed"))
    assert mesh_views.status(made.mesh.view())["models"] == {
        "registered": 3,
        "resident": 1,
        "loading": 1,
        "failed": 0,
    }


def test_a_workers_numbers_are_its_reports(made):
    say(
        made,
        "default-0",
        reports.CopyReport(A, "parked"),
        private_bytes=9,
        counters=reports.Counters(requests=4),
    )
    worker = mesh_views.status(made.mesh.view())["pools"][0]["workers"][0]
    assert (
        worker["resident"],
        worker["private_bytes"],
        worker["requests"],
        worker["failures"],
    ) == (1, 9, 4, 0)


def test_a_model_that_is_on_several_workers_is_told_with_them(made):
    assert mesh_views.status(made.mesh.view())["spread"] == []
    home = made.mesh.home("a")
    for _ in range(5):
        made.tick(1.0)
        say(made, home, demands=(reports.ModelDemand(A, 1.0),))
        made.perform_all()
    assert mesh_views.status(made.mesh.view())["spread"] == [
        {"model": "a", "workers": list(made.mesh.workers.homes("default", "a", 2))}
    ]


def test_a_mesh_is_ready_once_its_gateways_know_the_workers(made):
    made.settle()
    assert mesh_views.status(made.mesh.view())["state"] == "ready"
    made.kill("default-0")
    assert mesh_views.status(made.mesh.view())["state"] == "starting"
    for lane in ("default-0", "default-0"):
        made.step(lane)
    assert all(
        worker["state"] == "ready"
        for worker in mesh_views.status(made.mesh.view())["pools"][0]["workers"]
    )
    assert mesh_views.status(made.mesh.view())["state"] == "starting"
    made.settle()
    assert mesh_views.status(made.mesh.view())["state"] == "ready"


def test_a_worker_that_is_lost_says_why(made):
    made.kill("default-0")
    made.feed(events.WorkerLost("default-0", "again"))
    status = mesh_views.status(made.mesh.view())
    assert status["state"] == "starting"
    assert status["pools"][0]["workers"][0]["restarts"] == 1


def test_a_mesh_that_ends_is_draining(made):
    made.feed(events.DrainRequested())
    assert mesh_views.status(made.mesh.view())["state"] == "draining"


def test_a_mesh_without_a_gateway_is_not_ready():
    fresh = world.World()
    fresh.feed(events.NodesSeen(()))
    assert mesh_views.status(fresh.mesh.view())["state"] == "starting"


def test_versions_are_listed_by_number(made):
    for version in ("10", "9", "beta"):
        made.feed(events.ModelsRegistered((world.spec("c", version),)))
    page = mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(prefix="c"))
    assert [each["version"] for each in page["models"]] == ["1", "9", "10", "beta"]


def test_a_page_begins_after_the_last_one(made):
    assert names(made, limit=2) == ["a", "b"]
    assert mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(limit=2))["next"] == "b/1"
    assert names(made, limit=2, after="b/1") == ["c"]
    assert (
        mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(limit=2, after="b/1"))["next"]
        is None
    )


def test_a_bare_name_is_the_end_of_its_versions(made):
    made.feed(events.ModelsRegistered((world.spec("a", "2"),)))
    assert names(made, after="a") == ["b", "c"]
    assert names(made, after="a/1") == ["a", "b", "c"]


def test_aliases_are_shown_with_their_model(made):
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    assert mesh_views.models(made.mesh.view(), mesh_views.ModelFilter(prefix="a"))["models"][0][
        "aliases"
    ] == ["al"]
