from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.mesh import mesh
from meshserve.core.values import (
    catalog_sync,
    commands,
    desired,
    events,
    gateway_events,
    model,
    nodes,
    reports,
)
from tests.core import world

A = model.ModelId("a")
N1, N2 = nodes.ClusterNode("n1"), nodes.ClusterNode("n2")
ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def mesh_world() -> Iterator[world.World]:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2), world.pool("gpu", 1)))
    yield fresh
    fresh.check()


def since(mesh_world: world.World, before: int) -> list[str]:
    return [type(command).__name__ for command in mesh_world.log[before:]]


# Beginning


def test_nothing_is_started_before_the_configuration_that_is_coming() -> None:
    fresh = mesh.Mesh()
    wanted = desired.Desired(pools=(world.pool(),))
    assert fresh.handle(events.Restored((wanted,), is_config_coming=True), 0.0) == []
    assert fresh.handle(gateway_events.NodesSeen((N1,)), 0.0) == []
    started = fresh.handle(events.AdminRequested("t", events.ConfigApplied(wanted)), 0.0)
    settings = world.pool().settings
    assert started == [
        commands.Acknowledge("t"),
        commands.StartGateway("n1"),
        commands.StartWorker("default-0", settings),
        commands.StartWorker("default-1", settings),
    ]


def test_a_controller_that_begins_again_restarts_nothing() -> None:
    fresh = mesh.Mesh()
    wanted = desired.Desired(
        pools=(world.pool(workers=1),), gateway=desired.GatewaySettings("0.0.0.0:80")
    )
    living = events.LivingWorker("default-0", world.pool().settings, ENDPOINT, 7)
    following = fresh.handle(events.Restored((wanted,), (living,)), 0.0)
    assert [type(command).__name__ for command in following] == ["Watch", "SendChanges"]
    assert fresh.gateway_snapshot("n1").pools["default"][0].ready


def test_a_living_worker_with_other_settings_is_replaced() -> None:
    fresh = mesh.Mesh()
    living = events.LivingWorker("default-0", world.pool(queue_max=1).settings, ENDPOINT, 7)
    following = fresh.handle(
        events.Restored((desired.Desired(pools=(world.pool(workers=1),)),), (living,)), 0.0
    )
    assert commands.StopWorker("default-0") in following


# Catalogs


def test_a_started_worker_gets_the_full_catalog_of_its_pool(mesh_world: world.World) -> None:
    mesh_world.feed(
        events.ModelsRegistered(tuple(world.spec(f"m{number}") for number in range(2100)))
    )
    mesh_world.feed(events.ModelsRegistered((world.spec("g", pool="gpu"),)))
    before = len(mesh_world.log)
    mesh_world.kill("default-0")
    mesh_world.settle()
    sent = [
        item.step
        for item in mesh_world.log[before:]
        if isinstance(item, commands.SendChanges) and item.worker_id == "default-0"
    ]
    assert [len(step.changes) for step in sent] == [1000, 1000, 100]
    assert (sent[0].is_first, sent[-1].is_last) == (True, True)


def test_a_registration_goes_to_its_pools_workers_as_one_step(mesh_world: world.World) -> None:
    before = len(mesh_world.log)
    mesh_world.feed(events.ModelsRegistered((world.spec("a"),)))
    assert since(mesh_world, before) == ["SaveChanges", "SendChanges", "SendChanges"]


def test_the_workers_of_a_pool_share_the_changes_that_they_are_sent(
    mesh_world: world.World,
) -> None:
    before = len(mesh_world.log)
    mesh_world.feed(events.ModelsRegistered((world.spec("a"), world.spec("b"))))
    one, other = (
        item.step for item in mesh_world.log[before:] if isinstance(item, commands.SendChanges)
    )
    assert one.changes is other.changes


def test_a_registration_costs_the_same_however_many_models_there_are(
    mesh_world: world.World,
) -> None:
    def calls(name: str) -> Any:
        counted = 0

        def count(frame: Any, event: Any, _: Any) -> None:
            nonlocal counted
            # Ours alone: Hypothesis is called by the garbage collector, whenever that runs.
            counted += event == "call" and "hypothesis" not in frame.f_code.co_filename

        sys.setprofile(count)
        try:
            mesh_world.feed(events.ModelsRegistered((world.spec(name),)))
        finally:
            sys.setprofile(None)
        return counted

    first = calls("first")
    mesh_world.feed(
        events.ModelsRegistered(tuple(world.spec(f"m{number}") for number in range(5000)))
    )
    assert calls("last") == first


def test_a_worker_that_missed_a_step_gets_the_full_catalog(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a"),)))
    mesh_world.step("default-0", is_lost=True)
    mesh_world.settle()
    assert mesh_world.processes["default-0"].follower.catalog.versions("a")


def test_failures_after_a_missed_step_send_one_full_catalog(mesh_world: world.World) -> None:
    for name in "abc":
        mesh_world.feed(events.ModelsRegistered((world.spec(name),)))
    before = len(mesh_world.log)
    mesh_world.step("default-0", is_lost=True)
    mesh_world.settle()
    wholes = [
        item
        for item in mesh_world.log[before:]
        if isinstance(item, commands.SendChanges) and item.step.is_first
    ]
    assert len(wholes) == 1


def test_a_worker_that_lost_its_catalog_gets_the_full_one(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a"),)))
    mesh_world.settle()
    mesh_world.processes["default-0"].follower = catalog_sync.CatalogFollower()
    mesh_world.feed(
        events.WorkerReported(reports.WorkerReport("default-0", 1, "n1", "starting", 0), 2)
    )
    mesh_world.settle()
    mesh_world.check_settled()


def test_an_old_report_sends_nothing(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a"),)))
    mesh_world.settle()
    before = len(mesh_world.log)
    mesh_world.feed(
        events.WorkerReported(reports.WorkerReport("default-0", 1, "n1", "ready", 1), 1)
    )
    assert since(mesh_world, before) == []


# What was measured


def learned(mesh_world: world.World, size: int) -> list[str]:
    before = len(mesh_world.log)
    mesh_world.feed(
        events.WorkerReported(
            reports.WorkerReport(
                "default-0", 1, "n1", "ready", 9, measured=(world.measured("a", size),)
            ),
            0,
        )
    )
    return since(mesh_world, before)


def test_a_first_measurement_is_sent_to_all_and_remembered(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a"),)))
    assert learned(mesh_world, 1000) == ["SendChanges", "SendChanges", "RememberMeasured"]
    measured = mesh_world.declared(A).measured
    assert measured is not None
    assert measured.footprint.host_bytes == 1000


def test_a_second_measurement_is_sent_only_if_it_differs(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("a"),)))
    learned(mesh_world, 1000)
    assert learned(mesh_world, 1200) == []
    assert learned(mesh_world, 1300) == ["SendChanges", "SendChanges", "RememberMeasured"]


def test_a_measurement_of_a_removed_model_is_dropped(mesh_world: world.World) -> None:
    assert learned(mesh_world, 1000) == []


# Copies


def test_a_copy_seen_between_reports_is_known(mesh_world: world.World) -> None:
    copy = reports.CopyReport(A, "ready")
    mesh_world.feed(events.CopyEnsured("default-0", A, copy=copy))
    assert mesh_world.mesh.workers.records["default-0"].copies == {A: copy}
    mesh_world.feed(events.CopyUnloaded("default-0", A))
    mesh_world.feed(events.CopyEnsured("default-9", A, copy=copy))
    assert mesh_world.mesh.workers.records["default-0"].copies == {}


# Gateways


def test_gateways_are_configured_when_members_come_and_go(mesh_world: world.World) -> None:
    before = len(mesh_world.log)
    mesh_world.kill("default-0")
    assert since(mesh_world, before)[0] == "ConfigureGateway"
    members = mesh_world.mesh.gateway_snapshot("n1").pools["default"]
    assert [(member.worker_id, member.ready) for member in members] == [
        ("default-0", False),
        ("default-1", True),
    ]


def test_gateways_know_how_many_workers_are_configured(mesh_world: world.World) -> None:
    configured = sum(pool.workers for pool in mesh_world.mesh.catalog.desired.pools)
    assert configured
    assert mesh_world.mesh.gateway_snapshot("n1").workers_wanted == configured


def test_only_models_outside_the_default_pool_configure_gateways(mesh_world: world.World) -> None:
    before = len(mesh_world.log)
    mesh_world.feed(events.ModelsRegistered((world.spec("g", pool="gpu"),)))
    assert since(mesh_world, before) == ["SaveChanges", "SendChanges", "ConfigureGateway"]
    assert mesh_world.mesh.gateway_snapshot("n1").routes == {"g": "gpu"}


def test_an_alias_that_leaves_the_default_pool_configures_gateways(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("g", pool="gpu"), world.spec("a"))))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    before = len(mesh_world.log)
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "g")))
    assert "ConfigureGateway" in since(mesh_world, before)
    assert mesh_world.mesh.gateway_snapshot("n1").routes["al"] == "gpu"


def test_another_address_reconfigures_the_gateway_and_restarts_nothing(
    mesh_world: world.World,
) -> None:
    before = len(mesh_world.log)
    wanted = desired.Desired(
        pools=mesh_world.mesh.catalog.desired.pools, gateway=desired.GatewaySettings("0.0.0.0:9")
    )
    mesh_world.feed(events.ConfigApplied(wanted))
    assert since(mesh_world, before) == ["SaveChanges", "ConfigureGateway"]


def test_another_node_gets_a_gateway(mesh_world: world.World) -> None:
    before = len(mesh_world.log)
    mesh_world.feed(gateway_events.NodesSeen((N1, N2)))
    assert since(mesh_world, before) == ["StartGateway"]


def test_only_nodes_with_the_labels_have_a_gateway(mesh_world: world.World) -> None:
    front = N2._replace(labels=(("role", "front"), ("zone", "a")))
    mesh_world.feed(gateway_events.NodesSeen((N1, front)))
    mesh_world.perform_all()
    assert mesh_world.gateways == {"n1", "n2"}
    wanted = mesh_world.mesh.catalog.desired
    gateway = dataclasses.replace(wanted.gateway, labels=(("role", "front"),))
    mesh_world.feed(events.ConfigApplied(dataclasses.replace(wanted, gateway=gateway)))
    mesh_world.perform_all()
    assert mesh_world.gateways == {"n2"}


# Ending


def test_gateways_end_before_the_workers_behind_them(mesh_world: world.World) -> None:
    mesh_world.feed(events.DrainRequested())
    assert [type(command).__name__ for lane in mesh_world.lanes.values() for command in lane] == [
        "StopGateway"
    ]
    mesh_world.perform_all()
    assert (mesh_world.processes, mesh_world.gateways, mesh_world.mesh.is_drained) == (
        {},
        set(),
        True,
    )


def test_nothing_is_started_again_while_everything_ends(mesh_world: world.World) -> None:
    mesh_world.feed(events.DrainRequested())
    mesh_world.kill("default-0")
    mesh_world.perform_all()
    mesh_world.tick(100.0)
    mesh_world.perform_all()
    assert mesh_world.mesh.is_drained


def test_an_unknown_worker_is_stopped(mesh_world: world.World) -> None:
    before = len(mesh_world.log)
    mesh_world.feed(events.WorkerStarted("default-9", ENDPOINT, 9))
    assert mesh_world.log[before:] == [commands.StopWorker("default-9")]


def test_homes_are_by_the_name_that_is_called(mesh_world: world.World) -> None:
    mesh_world.feed(events.ModelsRegistered((world.spec("g", pool="gpu"),)))
    mesh_world.feed(events.AliasRequested(desired.DesiredAlias("al", "g")))
    assert (
        mesh_world.mesh.view().home("g"),
        mesh_world.mesh.view().home("al"),
        mesh_world.mesh.view().home("none"),
    ) == (
        "gpu-0",
        "gpu-0",
        None,
    )


# Determinism

BROKEN = errors.LoadFailed("it is broken")
WORKERS = st.sampled_from(["default-0", "default-1", "gpu-0", "none"])
SPECS = st.builds(
    lambda name, uri, pinned: world.spec(name, uri=uri, pinned=pinned),
    st.sampled_from("abc"),
    st.sampled_from(["/x", "/y"]),
    st.booleans(),
)
TICKETS = st.uuids().map(str)
REQUESTS = st.one_of(
    st.builds(events.ModelsRegistered, st.lists(SPECS, max_size=3).map(tuple), st.booleans()),
    st.builds(events.ModelRemoved, st.sampled_from("abc")),
    st.builds(
        events.ConfigApplied,
        st.builds(
            lambda count: desired.Desired(pools=(world.pool(workers=count),)), st.integers(0, 2)
        ),
    ),
)
EVENTS = st.one_of(
    st.builds(events.WorkerStarted, WORKERS, st.just(ENDPOINT), st.integers(1, 3)),
    st.builds(events.WorkerSynced, WORKERS, st.integers(0, 9)),
    st.builds(events.SyncFailed, WORKERS, st.integers(0, 9)),
    st.builds(events.WorkerLost, WORKERS, st.just("killed"), st.integers(0, 3)),
    st.builds(events.WorkerStopped, WORKERS),
    st.builds(events.CopyEnsured, WORKERS, st.just(A), st.sampled_from([None, BROKEN])),
    st.builds(gateway_events.NodesSeen, st.sampled_from([(N1,), (N1, N2), ()])),
    st.builds(gateway_events.GatewayLost, st.sampled_from(["n1", "n2"]), st.just("gone")),
    st.builds(events.ModelLoadRequested, TICKETS, st.sampled_from("abc"), st.just(A)),
    st.builds(events.ModelUnloadRequested, TICKETS, st.just(A)),
    st.builds(events.AdminRequested, TICKETS, REQUESTS),
    st.just("the registry answers"),
    st.just(events.Ticked()),
)


def replay(history: list[events.Event | str]) -> list[list[str]]:
    """What a new mesh answers to these events."""
    fresh, answers = mesh.Mesh(), []
    saving: list[commands.SaveChanges] = []
    for number, event in enumerate(history):
        if not isinstance(event, str):
            following = fresh.handle(event, float(number))
        elif saving:
            following = fresh.handle(events.ChangesSaved(saving.pop().changes), float(number))
        else:
            continue
        saving += [command for command in following if isinstance(command, commands.SaveChanges)]
        answers.append([repr(command) for command in following])
    return answers


@given(st.lists(EVENTS, max_size=40))
def test_the_same_events_bring_the_same_commands(following: list[events.Event | str]) -> None:
    history = [events.Restored((desired.Desired(pools=(world.pool(),)),)), *following]
    assert replay(history) == replay(history)
