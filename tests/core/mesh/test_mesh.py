from __future__ import annotations

import sys

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
    model,
    reports,
)
from tests.core import world

A = model.ModelId("a")
ENDPOINT = model.Endpoint("n1", "127.0.0.1", 9)


@pytest.fixture
def made():
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2), world.pool("gpu", 1)))
    yield fresh
    fresh.check()


def since(made, before):
    return [type(command).__name__ for command in made.log[before:]]


# Beginning


def test_nothing_is_started_before_the_configuration_that_is_coming():
    fresh = mesh.Mesh()
    wanted = desired.Desired(pools=(world.pool(),))
    assert fresh.handle(events.Restored((wanted,), is_config_coming=True), 0.0) == []
    assert fresh.handle(events.NodesSeen(("n1",)), 0.0) == []
    started = fresh.handle(events.AdminRequested("t", events.ConfigApplied(wanted)), 0.0)
    settings = world.pool().settings
    assert started == [
        commands.Acknowledge("t"),
        commands.StartGateway("n1"),
        commands.StartWorker("default-0", settings),
        commands.StartWorker("default-1", settings),
    ]


def test_a_controller_that_begins_again_restarts_nothing():
    fresh = mesh.Mesh()
    wanted = desired.Desired(
        pools=(world.pool(workers=1),), gateway=desired.GatewaySettings("0.0.0.0:80")
    )
    living = events.LivingWorker("default-0", world.pool().settings, ENDPOINT, 7)
    asked = fresh.handle(events.Restored((wanted,), (living,)), 0.0)
    assert [type(command).__name__ for command in asked] == ["Watch", "SendChanges"]
    assert fresh.gateway_snapshot("n1").pools["default"][0].ready


def test_a_living_worker_with_other_settings_is_replaced():
    fresh = mesh.Mesh()
    living = events.LivingWorker("default-0", world.pool(queue_max=1).settings, ENDPOINT, 7)
    asked = fresh.handle(
        events.Restored((desired.Desired(pools=(world.pool(workers=1),)),), (living,)), 0.0
    )
    assert commands.StopWorker("default-0") in asked


# Catalogs


def test_a_worker_that_starts_gets_the_whole_catalog_of_its_pool(made):
    made.feed(events.ModelsRegistered(tuple(world.spec(f"m{number}") for number in range(2100))))
    made.feed(events.ModelsRegistered((world.spec("g", pool="gpu"),)))
    before = len(made.log)
    made.kill("default-0")
    made.settle()
    sent = [
        each.step
        for each in made.log[before:]
        if isinstance(each, commands.SendChanges) and each.worker_id == "default-0"
    ]
    assert [len(step.changes) for step in sent] == [1000, 1000, 100]
    assert (sent[0].is_first, sent[-1].is_last) == (True, True)


def test_a_registration_goes_to_its_pools_workers_as_one_step(made):
    before = len(made.log)
    made.feed(events.ModelsRegistered((world.spec("a"),)))
    assert since(made, before) == ["SaveChanges", "SendChanges", "SendChanges"]


def test_a_registration_costs_the_same_however_many_models_there_are(made):
    def calls(name):
        counted = 0

        def count(_, event, __):
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            made.feed(events.ModelsRegistered((world.spec(name),)))
        finally:
            sys.setprofile(None)
        return counted

    first = calls("first")
    made.feed(events.ModelsRegistered(tuple(world.spec(f"m{number}") for number in range(5000))))
    assert calls("last") == first


def test_a_worker_that_missed_a_step_gets_everything(made):
    made.feed(events.ModelsRegistered((world.spec("a"),)))
    made.step("default-0", is_lost=True)
    made.settle()
    assert made.processes["default-0"].follower.catalog.has_name("a")


def test_steps_after_a_missed_one_bring_everything_only_once(made):
    for name in "abc":
        made.feed(events.ModelsRegistered((world.spec(name),)))
    before = len(made.log)
    made.step("default-0", is_lost=True)
    made.settle()
    wholes = [
        each
        for each in made.log[before:]
        if isinstance(each, commands.SendChanges) and each.step.is_first
    ]
    assert len(wholes) == 1


def test_a_worker_whose_report_lags_behind_what_it_had_gets_everything(made):
    made.feed(events.ModelsRegistered((world.spec("a"),)))
    made.settle()
    made.processes["default-0"].follower = catalog_sync.CatalogFollower()
    made.feed(events.WorkerReported(reports.WorkerReport("default-0", 1, "n1", "starting", 0), 2))
    made.settle()
    made.check_settled()


def test_a_report_that_was_asked_for_earlier_is_no_reason_to_send_anything(made):
    made.feed(events.ModelsRegistered((world.spec("a"),)))
    made.settle()
    before = len(made.log)
    made.feed(events.WorkerReported(reports.WorkerReport("default-0", 1, "n1", "ready", 1), 1))
    assert since(made, before) == []


# What was measured


def learned(made, size):
    before = len(made.log)
    made.feed(
        events.WorkerReported(
            reports.WorkerReport(
                "default-0", 1, "n1", "ready", 9, measured=(world.measured("a", size),)
            ),
            0,
        )
    )
    return since(made, before)


def test_what_is_measured_first_is_told_to_all_and_remembered(made):
    made.feed(events.ModelsRegistered((world.spec("a"),)))
    assert learned(made, 1000) == ["SendChanges", "SendChanges", "RememberMeasured"]
    assert made.mesh.catalog.models.declared(A).measured.footprint.host_bytes == 1000


def test_what_is_measured_again_is_told_only_where_it_differs(made):
    made.feed(events.ModelsRegistered((world.spec("a"),)))
    learned(made, 1000)
    assert learned(made, 1200) == []
    assert learned(made, 1300) == ["SendChanges", "SendChanges", "RememberMeasured"]


def test_what_is_measured_of_a_model_that_is_gone_is_forgotten(made):
    assert learned(made, 1000) == []


# Copies


def test_a_copy_that_is_seen_between_reports_is_known(made):
    copy = reports.CopyReport(A, "ready")
    made.feed(events.CopyEnsured("default-0", A, copy=copy))
    assert made.mesh.workers.records["default-0"].copies == {A: copy}
    made.feed(events.CopyUnloaded("default-0", A))
    made.feed(events.CopyEnsured("default-9", A, copy=copy))
    assert made.mesh.workers.records["default-0"].copies == {}


# Gateways


def test_gateways_hear_of_members_that_come_and_go(made):
    before = len(made.log)
    made.kill("default-0")
    assert since(made, before)[0] == "ConfigureGateway"
    members = made.mesh.gateway_snapshot("n1").pools["default"]
    assert [(member.worker_id, member.ready) for member in members] == [
        ("default-0", False),
        ("default-1", True),
    ]


def test_gateways_hear_of_models_outside_the_default_pool_alone(made):
    before = len(made.log)
    made.feed(events.ModelsRegistered((world.spec("g", pool="gpu"),)))
    assert since(made, before) == ["SaveChanges", "SendChanges", "ConfigureGateway"]
    assert made.mesh.gateway_snapshot("n1").routes == {"g": "gpu"}


def test_gateways_hear_when_an_alias_leaves_the_default_pool(made):
    made.feed(events.ModelsRegistered((world.spec("g", pool="gpu"), world.spec("a"))))
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "a")))
    before = len(made.log)
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "g")))
    assert "ConfigureGateway" in since(made, before)
    assert made.mesh.gateway_snapshot("n1").routes["al"] == "gpu"


def test_another_address_reconfigures_the_gateway_and_restarts_nothing(made):
    before = len(made.log)
    wanted = desired.Desired(
        pools=made.mesh.catalog.desired.pools, gateway=desired.GatewaySettings("0.0.0.0:9")
    )
    made.feed(events.ConfigApplied(wanted))
    assert since(made, before) == ["SaveChanges", "ConfigureGateway"]


def test_another_node_gets_a_gateway(made):
    before = len(made.log)
    made.feed(events.NodesSeen(("n1", "n2")))
    assert since(made, before) == ["StartGateway"]


# Ending


def test_gateways_end_before_the_workers_behind_them(made):
    made.feed(events.DrainRequested())
    assert [type(command).__name__ for lane in made.lanes.values() for command in lane] == [
        "StopGateway"
    ]
    made.perform_all()
    assert (made.processes, made.gateways, made.mesh.is_drained) == ({}, set(), True)


def test_nothing_is_started_again_while_everything_ends(made):
    made.feed(events.DrainRequested())
    made.kill("default-0")
    made.perform_all()
    made.tick(100.0)
    made.perform_all()
    assert made.mesh.is_drained


def test_a_worker_that_nobody_asked_for_is_stopped(made):
    before = len(made.log)
    made.feed(events.WorkerStarted("default-9", ENDPOINT, 9))
    assert made.log[before:] == [commands.StopWorker("default-9")]


def test_homes_are_by_the_name_that_is_called(made):
    made.feed(events.ModelsRegistered((world.spec("g", pool="gpu"),)))
    made.feed(events.AliasRequested(desired.DesiredAlias("al", "g")))
    assert (made.mesh.home("g"), made.mesh.home("al"), made.mesh.home("none")) == (
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
    st.builds(events.NodesSeen, st.sampled_from([("n1",), ("n1", "n2"), ()])),
    st.builds(events.GatewayLost, st.sampled_from(["n1", "n2"]), st.just("gone")),
    st.builds(events.ModelLoadRequested, TICKETS, st.sampled_from("abc"), st.just(A)),
    st.builds(events.ModelUnloadRequested, TICKETS, st.just(A)),
    st.builds(events.AdminRequested, TICKETS, REQUESTS),
    st.just("the registry answers"),
    st.just(events.Ticked()),
)


def replay(history):
    """What a new mesh answers to each of these events; the registry saves what it is asked to."""
    fresh, answers, saving = mesh.Mesh(), [], []
    for number, event in enumerate(history):
        if event == "the registry answers" and not saving:
            continue
        saved = event == "the registry answers" and events.ChangesSaved(saving.pop().changes)
        following = fresh.handle(saved or event, float(number))
        saving += [command for command in following if isinstance(command, commands.SaveChanges)]
        answers.append([repr(command) for command in following])
    return answers


@given(st.lists(EVENTS, max_size=40))
def test_the_same_events_bring_the_same_commands(following):
    history = [events.Restored((desired.Desired(pools=(world.pool(),)),)), *following]
    assert replay(history) == replay(history)
