from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.processes.reconcile import ProcessState
from meshserve.core.values import catalog, containment, events, model
from tests.core import world

A = model.ModelId("a")
KEY = "sha256:a/1"


@pytest.fixture
def mesh_world() -> Iterator[world.World]:
    fresh = world.World()
    fresh.apply(pools=(world.pool(workers=2), world.pool("gpu", workers=1)))
    fresh.feed(events.ModelsRegistered((world.spec("a"),)))
    fresh.perform_all()
    yield fresh
    fresh.settle()
    fresh.check_settled()


def die(mesh_world: world.World, *keys: str, worker_id: str = "default-0") -> int:
    """End a worker that ran these copies, let another one tell of it, and return its pid."""
    pid = mesh_world.processes[worker_id].pid
    mesh_world.kill(worker_id)
    death = containment.WorkerDeath(worker_id, pid, keys)
    mesh_world.hear_report("default-1" if worker_id != "default-1" else "gpu-0", deaths=(death,))
    return pid


def restart(mesh_world: world.World, worker_id: str = "default-0") -> float:
    """Return the seconds until the worker runs again."""
    begun_s = mesh_world.now_s
    while mesh_world.mesh.workers.records[worker_id].state is not ProcessState.READY:
        mesh_world.perform_all()
        mesh_world.tick(0.5)
    return mesh_world.now_s - begun_s


def standings(mesh_world: world.World, worker_id: str) -> tuple[Any, ...]:
    mesh_world.perform_all()
    return mesh_world.processes[worker_id].follower.catalog.standings()


def test_all_workers_hear_of_a_suspect_also_those_that_start_later(
    mesh_world: world.World,
) -> None:
    die(mesh_world, KEY)
    suspected = (containment.CopySuspected(KEY, 20.0),)
    assert standings(mesh_world, "default-1") == standings(mesh_world, "gpu-0") == suspected
    restart(mesh_world)
    assert standings(mesh_world, "default-0") == suspected


def test_a_death_counts_once_however_many_workers_tell_of_it(mesh_world: world.World) -> None:
    pid = die(mesh_world, KEY)
    death = containment.WorkerDeath("default-0", pid, (KEY,))
    mesh_world.hear_report("gpu-0", deaths=(death,))
    mesh_world.hear_report("gpu-0", deaths=(death,))
    assert standings(mesh_world, "gpu-0") == (containment.CopySuspected(KEY, 20.0),)


def test_a_second_death_beside_it_doubles_the_time_alone(mesh_world: world.World) -> None:
    die(mesh_world, KEY)
    die(mesh_world, KEY, worker_id="default-1")
    assert standings(mesh_world, "gpu-0") == (containment.CopySuspected(KEY, 40.0),)


def test_an_acquitted_copy_is_a_suspect_no_more(mesh_world: world.World) -> None:
    die(mesh_world, KEY)
    mesh_world.hear_report("default-1", trials=(containment.TrialEnded(KEY, A),))
    assert standings(mesh_world, "gpu-0") == ()


def test_a_conviction_is_saved_and_told_and_outlives_workers(mesh_world: world.World) -> None:
    die(mesh_world, KEY)
    convicted = containment.TrialEnded(KEY, A, "SIGSEGV")
    mesh_world.hear_report("default-1", trials=(convicted,))
    mesh_world.hear_report("default-1", trials=(convicted,))
    held = containment.CopyQuarantined(KEY, (A,), "SIGSEGV")
    assert mesh_world.saved_quarantines == {KEY: held}
    restart(mesh_world)
    for worker_id in ("default-0", "default-1", "gpu-0"):
        assert standings(mesh_world, worker_id) == (held,)
    assert mesh_world.mesh.view().quarantined() == [(A, "SIGSEGV")]


def test_a_conviction_that_could_not_be_saved_is_told_again(mesh_world: world.World) -> None:
    convicted = containment.TrialEnded(KEY, A, "SIGSEGV")
    mesh_world.is_store_broken = True
    mesh_world.hear_report("default-1", trials=(convicted,))
    assert mesh_world.saved_quarantines == {}
    mesh_world.is_store_broken = False
    mesh_world.hear_report("default-1", trials=(convicted,))
    assert list(mesh_world.saved_quarantines) == [KEY]


def test_a_released_copy_is_a_suspect_until_it_has_lived_alone(mesh_world: world.World) -> None:
    mesh_world.hear_report("default-1", trials=(containment.TrialEnded(KEY, A, "SIGSEGV"),))
    assert mesh_world.feed(events.ReleaseRequested("a")) == ("model a:1 released",)
    assert mesh_world.saved_quarantines == {}
    assert standings(mesh_world, "gpu-0") == (containment.CopySuspected(KEY, 20.0),)
    assert mesh_world.refused(events.ReleaseRequested("a")) == errors.Conflict.__name__


def test_a_copy_in_quarantine_is_suspected_of_nothing_more(mesh_world: world.World) -> None:
    mesh_world.hear_report("default-1", trials=(containment.TrialEnded(KEY, A, "SIGSEGV"),))
    die(mesh_world, KEY)
    assert [type(held) for held in standings(mesh_world, "gpu-0")] == [containment.CopyQuarantined]


def test_pauses_between_starts_do_not_grow_by_deaths_that_a_new_suspect_explains(
    mesh_world: world.World,
) -> None:
    for number in range(6):
        die(mesh_world, f"sha256:{number}/1")
        assert restart(mesh_world) <= 0.5
    assert mesh_world.mesh.workers.records["default-0"].restarts == 6


def test_pauses_grow_by_deaths_beside_a_copy_that_was_a_suspect_before(
    mesh_world: world.World,
) -> None:
    pauses_s = []
    for _ in range(5):
        die(mesh_world, KEY)
        pauses_s.append(restart(mesh_world))
    assert pauses_s == sorted(pauses_s)
    assert pauses_s[-1] >= 4.0


def test_a_death_that_is_told_before_its_loss_is_noticed_is_explained_too(
    mesh_world: world.World,
) -> None:
    for number in range(5):
        pid = mesh_world.processes["default-0"].pid
        death = containment.WorkerDeath("default-0", pid, (f"sha256:{number}/1",))
        mesh_world.hear_report("default-1", deaths=(death,))
        mesh_world.kill("default-0")
        assert restart(mesh_world) <= 0.5


def test_a_model_with_another_artifact_is_not_shown_in_quarantine(mesh_world: world.World) -> None:
    mesh_world.hear_report("default-1", trials=(containment.TrialEnded(KEY, A, "SIGSEGV"),))
    mesh_world.hear_report("default-1", copies=(world.ready_copy(A),))
    assert mesh_world.mesh.view().quarantined() == []
    mesh_world.feed(events.ModelRemoved("a"))
    assert mesh_world.mesh.view().quarantined() == []


def hung(mesh_world: world.World, total: int) -> None:
    copy = containment.HungCopy(KEY, (A,), 1, total, 0.0)
    mesh_world.hear_report("default-1", hung=(copy,))


def test_a_copy_with_a_run_that_hangs_is_a_suspect_everywhere_for_longer_each_time(
    mesh_world: world.World,
) -> None:
    hung(mesh_world, 1)
    hung(mesh_world, 1)
    assert standings(mesh_world, "gpu-0") == (containment.CopySuspected(KEY, 20.0),)
    hung(mesh_world, 2)
    assert standings(mesh_world, "gpu-0") == (containment.CopySuspected(KEY, 40.0),)


def test_a_copy_that_took_too_much_memory_twice_is_a_suspect_everywhere(
    mesh_world: world.World,
) -> None:
    standing = []
    for times in (1, 2, 2):
        hog = containment.MemoryHog(KEY, (A,), times, 1 << 30, is_suspect=times > 1)
        mesh_world.hear_report("default-1", hogs=(hog,))
        standing.append(standings(mesh_world, "gpu-0"))
    assert standing == [(), *2 * [(containment.CopySuspected(KEY, 20.0),)]]


STOP = catalog.JoiningStopped(KEY, "output 'y' differs")


def stops(mesh_world: world.World, worker_id: str) -> list[Any]:
    mesh_world.perform_all()
    return list(mesh_world.processes[worker_id].follower.catalog.join_stops.values())


def test_all_workers_hear_of_joining_that_stopped_on_one(mesh_world: world.World) -> None:
    for _ in range(2):
        mesh_world.hear_report("default-0", join_stops=(STOP,))
    assert [stops(mesh_world, id_) for id_ in ("default-0", "default-1", "gpu-0")] == [[STOP]] * 3
    mesh_world.kill("default-1")
    restart(mesh_world, "default-1")
    assert stops(mesh_world, "default-1") == [STOP]
