from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import onnx, python
from meshserve.worker.models import join_proofs, joining, loader
from meshserve.worker.models.joining import JoinState
from tests.worker import helpers

SPEC = model.ModelSpec(model.ModelId("m"), "m")
ROWS = model.Signature((), (), has_batch_dimension=True)


class Prover:
    """A runtime that finds `reason`, or raises it; it notes whether the artifact was held."""

    lacks_proof = ""

    def __init__(self, storage: helpers.FakeStorage, reason: str | Exception | None) -> None:
        self.storage = storage
        self.reason = reason
        self.was_held: list[bool] = []

    def find_row_mixing(
        self, _loaded: object, artifact: model_runtime.Artifact, _spec: model.ModelSpec
    ) -> str | None:
        self.was_held.append(self.storage.held[artifact.digest] == 1)
        if isinstance(self.reason, Exception):
            raise self.reason
        return self.reason


class Proofs:
    """The proofs of a worker whose artifact is unchanged, unless `change` is set."""

    def __init__(self, storage: helpers.FakeStorage) -> None:
        self.storage = storage
        self.change: errors.MeshError | None = None
        self.proofs = join_proofs.JoinProofs(storage, self.check)

    async def check(self, _recipe: loader.LoadRecipe) -> None:
        if self.change is not None:
            raise self.change

    async def prove(self, reason: str | Exception | None) -> tuple[joining.Joining, Any, Prover]:
        """Prove a copy that was just loaded; return its joining, its recipe and the runtime."""
        prover: Any = Prover(self.storage, reason)
        artifact = model_runtime.Artifact(self.storage.folder, "sha256:1", 1)
        recipe = loader.LoadRecipe("key", SPEC, artifact, prover, "cpu")
        joined = self.proofs.first_verdict(recipe, ROWS)
        loaded: Any = object()
        await self.proofs.prove(recipe, loaded, joined)
        return joined, recipe, prover


@pytest.fixture
async def proofs(storage: helpers.FakeStorage) -> AsyncIterator[Proofs]:
    shared = Proofs(storage)
    yield shared
    shared.proofs.close()


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (None, JoinState.JOINED, ""),
        ("LSTM", JoinState.NEVER, "LSTM"),
        (OSError("no such file"), JoinState.NEVER, "OSError: no such file"),
    ],
)
async def test_a_proof_is_kept_for_the_next_load_of_the_copy(
    proofs: Proofs, outcome: str | Exception | None, state: JoinState, reason: str
) -> None:
    joined, recipe, prover = await proofs.prove(outcome)
    assert (joined.state, joined.reason) == (state, reason)
    again = proofs.proofs.first_verdict(recipe, ROWS)
    assert again is not joined
    assert (again.state, again.reason) == (state, reason)
    assert prover.was_held == [True]
    assert proofs.storage.held["sha256:1"] == 0


async def test_nothing_is_proven_of_an_artifact_that_has_changed(proofs: Proofs) -> None:
    proofs.change = errors.LoadFailed("the artifact has changed")
    joined, recipe, prover = await proofs.prove(None)
    assert (joined.state, joined.reason) == (JoinState.NEVER, "the artifact has changed")
    assert prover.was_held == []
    assert proofs.proofs.first_verdict(recipe, ROWS).state is JoinState.UNPROVEN


async def test_a_verdict_that_was_not_learned_is_not_kept(proofs: Proofs) -> None:
    joined, recipe, _ = await proofs.prove(None)
    proofs.proofs.remember("key", joining.Joining(JoinState.UNPROVEN))
    assert proofs.proofs.first_verdict(recipe, ROWS).state is joined.state


async def test_a_runtime_that_can_show_nothing_says_so_at_once(proofs: Proofs) -> None:
    artifact = model_runtime.Artifact(proofs.storage.folder, "sha256:1", 1)
    recipe = loader.LoadRecipe("key", SPEC, artifact, python.PythonRuntime(), "cpu")
    joined = proofs.proofs.first_verdict(recipe, ROWS)
    assert joined.state is JoinState.NEVER
    assert joined.reason == "runtime python does not show that rows are independent"
    recipe = loader.LoadRecipe("key", SPEC, artifact, onnx.OnnxRuntime(), "cpu")
    assert proofs.proofs.first_verdict(recipe, ROWS).state is JoinState.UNPROVEN


async def test_a_suspects_trial_joins_what_the_worker_did_and_proves_nothing(
    proofs: Proofs,
) -> None:
    artifact = model_runtime.Artifact(proofs.storage.folder, "sha256:1", 1)
    recipe = loader.LoadRecipe("other", SPEC, artifact, onnx.OnnxRuntime(), "cpu")
    trial = loader.isolated(recipe)
    joined = proofs.proofs.first_verdict(trial, ROWS)
    assert (joined.state, joined.reason) == (JoinState.NEVER, join_proofs.IN_TRIAL)
    owners = model.Signature((), (), has_batch_dimension=True, can_join=True)
    assert proofs.proofs.first_verdict(trial, owners).state is JoinState.JOINED
    _, proven, _ = await proofs.prove(None)
    trial = loader.isolated(proven)
    assert proofs.proofs.first_verdict(trial, ROWS).state is JoinState.JOINED
