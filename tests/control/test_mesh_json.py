from __future__ import annotations

from typing import Any

import pytest

from meshserve.control import mesh_json
from meshserve.core.values import containment, desired, events, gateway_events, model, reports
from tests.core import world

A, B = model.ModelId("a"), model.ModelId("b")


@pytest.fixture
def mesh_world() -> world.World:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2),))
    fresh.feed(events.ModelsRegistered(tuple(world.spec(name) for name in ("a", "b", "c"))))
    return fresh


def say(
    mesh_world: world.World, worker_id: str, *copies: reports.CopyReport, **fields: Any
) -> None:
    report = reports.WorkerReport(worker_id, 1, "n1", "ready", 99, copies=copies, **fields)
    mesh_world.feed(events.WorkerReported(report, 0))


def names(mesh_world: world.World, **choice: Any) -> list[str]:
    return [
        item["name"]
        for item in mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(**choice))[
            "models"
        ]
    ]


def test_the_best_copy_decides_a_models_state(mesh_world: world.World) -> None:
    say(mesh_world, "default-0", reports.CopyReport(A, "failed", "it is corrupt", requests=2))
    say(
        mesh_world,
        "default-1",
        reports.CopyReport(A, "ready", footprint=model.Footprint(5), requests=3),
    )
    (shown,) = mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(prefix="a"))["models"]
    assert (shown["state"], shown["worker"], shown["requests"], shown["reason"]) == (
        "ready",
        "default-1",
        5,
        "",
    )
    assert shown["footprint_bytes"] == {"host": 5, "gpu": 0}


def test_a_model_that_is_absent_takes_what_it_took_last(mesh_world: world.World) -> None:
    say(mesh_world, "default-0", measured=(world.measured("a", 7),))
    assert (
        mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(prefix="a"))["models"][0][
            "footprint_bytes"
        ]["host"]
        == 7
    )


def test_models_are_counted_once_wherever_they_are(mesh_world: world.World) -> None:
    say(mesh_world, "default-0", reports.CopyReport(A, "ready"), reports.CopyReport(B, "loading"))
    say(mesh_world, "default-1", reports.CopyReport(A, "failed"))
    assert mesh_json.status(mesh_world.mesh.view())["models"] == {
        "registered": 3,
        "resident": 1,
        "loading": 1,
        "failed": 0,
    }


def test_a_workers_numbers_are_its_reports(mesh_world: world.World) -> None:
    say(
        mesh_world,
        "default-0",
        reports.CopyReport(A, "parked"),
        private_bytes=9,
        counters=reports.Counters(requests=4),
    )
    worker = mesh_json.status(mesh_world.mesh.view())["pools"][0]["workers"][0]
    assert (
        worker["resident"],
        worker["private_bytes"],
        worker["requests"],
        worker["failures"],
    ) == (1, 9, 4, 0)


def test_a_model_on_several_workers_is_shown_with_them(mesh_world: world.World) -> None:
    assert mesh_json.status(mesh_world.mesh.view())["spread"] == []
    home = mesh_world.home("a")
    for _ in range(5):
        mesh_world.tick(1.0)
        say(mesh_world, home, demands=(reports.ModelDemand(A, 1.0),))
        mesh_world.perform_all()
    assert mesh_json.status(mesh_world.mesh.view())["spread"] == [
        {"model": "a", "workers": list(mesh_world.mesh.workers.homes("default", "a", 2))}
    ]


def test_a_model_that_is_joined_no_more_anywhere_is_told(mesh_world: world.World) -> None:
    say(mesh_world, "default-0", reports.CopyReport(A, "ready", joining="joined"))
    say(
        mesh_world,
        "default-1",
        reports.CopyReport(A, "ready", joining="stopped", joining_reason="y differs"),
        reports.CopyReport(B, "ready", joining="never", joining_reason="LSTM"),
    )
    view = mesh_world.mesh.view()
    assert mesh_json.status(view)["joins_stopped"] == [
        {"model": "a", "version": "1", "worker": "default-1", "reason": "y differs"}
    ]
    shown = mesh_json.models(view, mesh_json.ModelFilter())["models"]
    assert [row["joining"] for row in shown] == [
        {"state": "stopped", "reason": "y differs"},
        {"state": "never", "reason": "LSTM"},
        {"state": "", "reason": ""},
    ]


def test_an_alias_whose_version_went_away_is_told(mesh_world: world.World) -> None:
    place = model.Origin(model.OriginKind.REPOSITORY, "/models")
    first, second = (world.spec("r", version, origin=place) for version in ("1", "2"))
    mesh_world.apply(
        pools=(world.pool(workers=2),),
        repositories=(desired.RepositorySettings("/models"),),
    )
    mesh_world.feed(events.RepositoryScanned(place, (first, second)))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("prod", "r", "1")))
    assert mesh_json.status(mesh_world.mesh.view())["aliases_dangling"] == []
    mesh_world.feed(events.RepositoryScanned(place, (second,)))
    mesh_world.settle()
    view = mesh_world.mesh.view()
    (dangling,) = mesh_json.status(view)["aliases_dangling"]
    assert dangling["alias"] == "prod"
    assert dangling["reason"].endswith("model 'r' has no version '1'; there is: 2")
    (shown,) = mesh_json.models(view, mesh_json.ModelFilter(prefix="r"))["models"]
    assert (shown["aliases"], shown["aliases_dangling"]) == (["prod"], ["prod"])


def test_a_model_with_runs_that_do_not_end_is_told(mesh_world: world.World) -> None:
    for worker_id, runs in (("default-0", 2), ("default-1", 1)):
        say(mesh_world, worker_id, hung=(containment.HungCopy("k", (A,), runs, 3, 0.5),))
    view = mesh_world.mesh.view()
    assert mesh_json.status(view)["hung"] == [
        {"model": "a", "version": "1", "worker": "default-0", "runs": 2},
        {"model": "a", "version": "1", "worker": "default-1", "runs": 1},
    ]
    shown = mesh_json.models(view, mesh_json.ModelFilter())["models"]
    assert [row["hung_runs"] for row in shown] == [3, 0, 0]


def test_a_model_that_ran_when_memory_was_over_its_budget_is_told(
    mesh_world: world.World,
) -> None:
    hog = containment.MemoryHog("k", (A,), 2, 1 << 30, is_suspect=True)
    say(mesh_world, "default-0", hogs=(hog,))
    shown = {"model": "a", "version": "1", "worker": "default-0", "times": 2, "peak_bytes": 1 << 30}
    assert mesh_json.status(mesh_world.mesh.view())["hogs"] == [shown]


def test_a_mesh_is_ready_once_its_gateways_know_the_workers(mesh_world: world.World) -> None:
    mesh_world.settle()
    assert mesh_json.status(mesh_world.mesh.view())["state"] == "ready"
    mesh_world.kill("default-0")
    assert mesh_json.status(mesh_world.mesh.view())["state"] == "starting"
    for lane in ("default-0", "default-0"):
        mesh_world.step(lane)
    assert all(
        worker["state"] == "ready"
        for worker in mesh_json.status(mesh_world.mesh.view())["pools"][0]["workers"]
    )
    known = mesh_json.status(mesh_world.mesh.view())
    assert (known["state"], known["routed"]) == ("starting", False)
    mesh_world.settle()
    known = mesh_json.status(mesh_world.mesh.view())
    assert (known["state"], known["routed"]) == ("ready", True)


def test_a_worker_that_is_lost_says_why(mesh_world: world.World) -> None:
    mesh_world.kill("default-0")
    mesh_world.feed(events.WorkerLost("default-0", "again"))
    status = mesh_json.status(mesh_world.mesh.view())
    assert status["state"] == "starting"
    assert status["pools"][0]["workers"][0]["restarts"] == 1


def test_a_mesh_that_ends_is_draining(mesh_world: world.World) -> None:
    mesh_world.feed(events.DrainRequested())
    assert mesh_json.status(mesh_world.mesh.view())["state"] == "draining"


def test_a_mesh_without_a_gateway_is_not_ready() -> None:
    fresh = world.World()
    fresh.feed(gateway_events.NodesSeen(()))
    assert mesh_json.status(fresh.mesh.view())["state"] == "starting"


def test_versions_are_listed_by_number(mesh_world: world.World) -> None:
    for version in ("10", "9", "beta"):
        mesh_world.feed(events.ModelsRegistered((world.spec("c", version),)))
    page = mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(prefix="c"))
    assert [item["version"] for item in page["models"]] == ["beta", "1", "9", "10"]


def test_a_page_begins_after_the_last_one(mesh_world: world.World) -> None:
    assert names(mesh_world, limit=2) == ["a", "b"]
    assert mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(limit=2))["next"] == "b/1"
    assert names(mesh_world, limit=2, after="b/1") == ["c"]
    assert (
        mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(limit=2, after="b/1"))[
            "next"
        ]
        is None
    )


def test_a_bare_name_is_the_end_of_its_versions(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a", "2"),)))
    assert names(mesh_world, after="a") == ["b", "c"]
    assert names(mesh_world, after="a/1") == ["a", "b", "c"]


def test_aliases_are_shown_with_their_model(mesh_world: world.World) -> None:
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    assert mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(prefix="a"))["models"][0][
        "aliases"
    ] == ["al"]


def test_no_secret_of_a_uri_is_shown(mesh_world: world.World) -> None:
    uri = "https://user:secret@host/model.onnx?sig=secret"
    mesh_world.feed(events.ModelsRegistered((world.spec("hidden", uri=uri),)))
    shown = mesh_json.models(mesh_world.mesh.view(), mesh_json.ModelFilter(prefix="hidden"))
    assert shown["models"][0]["uri"] == "https://***@host/model.onnx?***"
