from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from meshserve.core.memory import residency_events as ev
from meshserve.core.memory import version_choice
from meshserve.core.memory.copy_lifecycle import CopyPhase
from meshserve.core.values import model
from tests.core import play

FIRST, SECOND, THIRD = (model.ModelId("m", version) for version in "123")
NEWEST_FIRST = (THIRD, SECOND, FIRST)
WHOLE = play.Artifact("", model.Footprint(10), model.Footprint(10))


class VersionPlay(play.Play):
    """A worker with versions of one model; each has bytes of its own until it is replaced."""

    def __init__(self) -> None:
        super().__init__(host=1000)
        self.choices = version_choice.VersionChoice(self.residency.bindings, self.residency.copies)
        for id_ in NEWEST_FIRST:
            self.put(id_, f"v{id_.version}")

    def put(self, id_: model.ModelId, key: str) -> None:
        artifact = play.Artifact(key, WHOLE.hint, WHOLE.actual)
        self.artifacts[id_] = self.artifacts_by_key[key] = artifact

    def replace(self, id_: model.ModelId, key: str) -> None:
        self.put(id_, key)
        self.send(ev.ModelForgotten(id_, is_replaced=True, keeps_copy=True))

    def withdraw(self, id_: model.ModelId, *, keeps_copy: bool) -> None:
        self.send(ev.ModelForgotten(id_, keeps_copy=keeps_copy))

    def choose(self, *versions: model.ModelId) -> version_choice.Choice:
        superseded = self.residency.previous.superseded("m")
        candidates = self.choices.candidates(versions, superseded)
        choice = self.choices.choose(candidates, self.now_s)
        assert choice is not None
        return choice

    def try_load(self, id_: model.ModelId, *, is_good: bool) -> play.Request:
        """Request a version, and let all that it waits for end well or badly."""
        request = self.request_id(id_)
        for attempt in list(self.orders.fetching):
            self.finish_attempt(attempt)
        for key in list(self.orders.loading):
            if is_good:
                self.finish_load_of(key)
            else:
                del self.orders.loading[key]
                self.send(ev.CopyLoadFailed(key, play.BROKEN))
        if request.key is not None:
            self.release(request)
        return request


@pytest.fixture
def versions() -> VersionPlay:
    return VersionPlay()


def test_the_newest_is_loaded_if_nothing_has_loaded_yet(versions: VersionPlay) -> None:
    assert versions.choose(THIRD, SECOND, FIRST) == version_choice.Choice(THIRD)
    assert versions.choices.choose([], 0.0) is None


def test_a_version_that_was_never_tried_is_tried_beside_the_one_that_answers(
    versions: VersionPlay,
) -> None:
    versions.try_load(FIRST, is_good=True)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(FIRST, SECOND)
    versions.try_load(SECOND, is_good=True)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(SECOND)


def test_a_version_that_failed_is_passed_over_until_its_next_try(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.try_load(SECOND, is_good=False)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(FIRST)
    versions.wait(100.0)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(FIRST, SECOND)
    # A newer one that was never tried comes first.
    assert versions.choose(*NEWEST_FIRST) == version_choice.Choice(FIRST, THIRD)


def test_a_version_that_was_never_tried_comes_before_those_that_failed(
    versions: VersionPlay,
) -> None:
    versions.try_load(SECOND, is_good=False)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(FIRST)
    versions.try_load(FIRST, is_good=False)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(SECOND)


def test_a_good_version_that_was_evicted_is_loaded_again(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.try_load(SECOND, is_good=True)
    versions.send(ev.UnloadRequested(SECOND))
    versions.finish_free_of("v2")
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(SECOND)


def test_a_newer_version_is_tried_before_an_older_one_is_loaded_again(
    versions: VersionPlay,
) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.send(ev.UnloadRequested(FIRST))
    versions.finish_free_of("v1")
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(SECOND)
    versions.try_load(SECOND, is_good=False)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(FIRST)


def test_a_version_whose_load_hangs_is_passed_over(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.request_id(SECOND)
    versions.finish_attempt(next(iter(versions.orders.fetching)))
    versions.wait(11.0)
    assert versions.residency.copies["v2"].state is CopyPhase.STUCK
    versions.wait(100.0)
    assert versions.choose(SECOND, FIRST) == version_choice.Choice(FIRST)


def test_a_replaced_model_answers_until_the_new_one_is_loaded(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.replace(FIRST, "new")
    before = version_choice.previous_id(FIRST)
    assert versions.choose(FIRST) == version_choice.Choice(before, FIRST)
    assert versions.residency.find_ready(before) == "v1"
    versions.try_load(FIRST, is_good=False)
    assert versions.choose(FIRST) == version_choice.Choice(before)
    versions.replace(FIRST, "newer")
    assert versions.choose(FIRST) == version_choice.Choice(before, FIRST)
    versions.try_load(FIRST, is_good=True)
    assert versions.choose(FIRST) == version_choice.Choice(FIRST)
    assert list(versions.orders.freeing) == ["v1"]
    assert before not in versions.residency.bindings


def test_a_model_that_becomes_again_what_it_was_is_not_loaded_anew(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.replace(FIRST, "new")
    versions.replace(FIRST, "v1")
    request = versions.request_id(FIRST)
    versions.finish_attempt(next(iter(versions.orders.fetching)))
    assert request.key == "v1"
    assert not versions.orders.loading
    assert not versions.orders.freeing


def test_a_withdrawn_model_goes_with_what_it_was(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.replace(FIRST, "new")
    waiting = versions.request_id(FIRST)
    versions.send(ev.ModelForgotten(FIRST))
    assert waiting.error is not None
    assert list(versions.orders.freeing) == ["v1"]
    assert not versions.residency.bindings


def test_a_superseded_version_answers_until_another_one_is_loaded(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.withdraw(FIRST, keeps_copy=True)
    before = version_choice.previous_id(FIRST)
    assert versions.choose(SECOND) == version_choice.Choice(before, SECOND)
    versions.try_load(SECOND, is_good=False)
    assert versions.choose(SECOND) == version_choice.Choice(before)
    versions.try_load(THIRD, is_good=True)
    assert versions.choose(THIRD, SECOND) == version_choice.Choice(THIRD)
    assert list(versions.orders.freeing) == ["v1"]


def test_a_replaced_version_that_is_superseded_answers_by_what_it_was(
    versions: VersionPlay,
) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.replace(FIRST, "new")
    versions.try_load(FIRST, is_good=False)
    versions.withdraw(FIRST, keeps_copy=True)
    assert versions.choose(SECOND) == version_choice.Choice(
        version_choice.previous_id(FIRST), SECOND
    )


def test_a_superseded_version_goes_with_those_that_came_after_it(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.withdraw(FIRST, keeps_copy=True)
    versions.withdraw(SECOND, keeps_copy=False)
    assert list(versions.orders.freeing) == ["v1"]
    assert not versions.residency.bindings


def test_a_version_that_comes_back_is_not_loaded_anew(versions: VersionPlay) -> None:
    versions.try_load(FIRST, is_good=True)
    versions.withdraw(FIRST, keeps_copy=True)
    request = versions.request_id(FIRST)
    versions.finish_attempt(next(iter(versions.orders.fetching)))
    assert (request.key, versions.orders.loading, versions.orders.freeing) == ("v1", {}, {})
    assert versions.residency.previous.superseded("m") == frozenset()


def test_what_a_model_was_is_not_unloaded_for_being_idle() -> None:
    versions = VersionPlay()
    versions.residency.limits = type(versions.residency.limits)(
        model.Footprint(1000), idle_unload_s=10.0
    )
    versions.try_load(FIRST, is_good=True)
    versions.try_load(SECOND, is_good=True)
    versions.replace(FIRST, "new")
    versions.wait(20.0)
    assert list(versions.orders.freeing) == ["v2"]


def test_ids_of_before_a_replacement_are_no_users_ids() -> None:
    before = version_choice.previous_id(FIRST)
    assert (version_choice.is_previous(before), version_choice.is_previous(FIRST)) == (True, False)
    assert version_choice.public_id(before) == version_choice.public_id(FIRST) == FIRST


class Rollout(RuleBasedStateMachine):
    """Versions come, are replaced, load and fail in any order, under requests without a version.

    Every request is answered while a copy is in memory that has loaded and was not withdrawn.
    """

    @initialize()
    def begin(self) -> None:
        self.play = VersionPlay()
        self.declared = {FIRST}
        self.numbers = 0
        self.loaded: set[str] = set()

    @rule(id_=st.sampled_from(NEWEST_FIRST))
    def declare(self, id_: model.ModelId) -> None:
        self.numbers += 1
        if id_ in self.declared:
            self.play.replace(id_, f"n{self.numbers}")
        else:
            self.declared.add(id_)

    @rule(id_=st.sampled_from(NEWEST_FIRST))
    def withdraw(self, id_: model.ModelId) -> None:
        # One is left, or no request would mean anything.
        if id_ in self.declared and len(self.declared) > 1:
            self.declared.discard(id_)
            self.play.withdraw(id_, keeps_copy=self._is_superseded(id_))

    def _is_superseded(self, id_: model.ModelId) -> bool:
        """Return what a worker decides of a version that is not declared any longer."""
        good = version_choice.Standing.GOOD
        now_s = self.play.now_s
        return max(self.declared) > id_ and not any(
            self.play.choices.standing(other, now_s) is good for other in self.declared
        )

    @rule()
    def request(self) -> None:
        good = self._good()
        choice = self._choice()
        if choice.trial is not None:
            self.play.request_id(choice.trial)
        request = self.play.request_id(choice.id)
        assert request.key is not None or not good, f"{choice} is not ready, but {good} are"
        if request.key is not None:
            self.play.release(request)

    def _choice(self) -> version_choice.Choice:
        return self.play.choose(*(id_ for id_ in NEWEST_FIRST if id_ in self.declared))

    def _good(self) -> set[str]:
        """Return the ready copies that a declared version is or was bound to."""
        return {
            copy.key
            for copy in self.play.residency.copies.values()
            if copy.state is CopyPhase.READY and copy.names
        }

    @precondition(lambda self: self.play.orders.fetching)
    @rule(data=st.data(), is_good=st.booleans())
    def finish_fetch(self, data: st.DataObject, is_good: bool) -> None:
        attempt = data.draw(st.sampled_from(list(self.play.orders.fetching)))
        if is_good:
            self.play.finish_attempt(attempt)
        else:
            id_, _ = self.play.orders.fetching.pop(attempt)
            self.play.send(ev.FetchFailed(id_, attempt, play.BROKEN))

    @precondition(lambda self: self.play.orders.loading)
    @rule(data=st.data(), is_good=st.booleans())
    def finish_load(self, data: st.DataObject, is_good: bool) -> None:
        key = data.draw(st.sampled_from(list(self.play.orders.loading)))
        if is_good:
            self.play.finish_load_of(key)
        else:
            del self.play.orders.loading[key]
            self.play.send(ev.CopyLoadFailed(key, play.BROKEN))
        for ticket, request in list(self.play.requests.items()):
            if request.key is not None and self.play.leases[request.key]:
                self.play.end_lease(request.key)
                del self.play.requests[ticket]

    @precondition(lambda self: self.play.orders.freeing)
    @rule()
    def finish_free(self) -> None:
        self.play.finish_free_of(next(iter(self.play.orders.freeing)))

    @rule(seconds=st.sampled_from([0.1, 5.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.play.wait(seconds)


Rollout.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestRollout = Rollout.TestCase
