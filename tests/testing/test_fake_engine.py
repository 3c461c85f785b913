from __future__ import annotations

import json

import pytest

from meshserve import errors
from tests.contracts import engine as contract
from tests.llm import program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("model")
    (made / "config.json").write_text("{}")
    return str(made)


def model(folder):
    return program.Model(
        "fake", folder, {program.ADAPTER: folder}, {"stall_timeout_s": contract.STALL_S}
    )


@pytest.fixture(scope="module")
def served(folder):
    made = program.Served(model(folder))
    yield made
    made.end()


class TestFakeEngine(contract.EngineContract):
    """It keeps to what vLLM keeps to."""


class Fresh:
    @pytest.fixture
    def served(self, folder):
        made = program.Served(model(folder))
        yield made
        made.end()


class TestFakeEngineKilled(Fresh, contract.FailureContract):
    pass


class TestFakeEngineStopped(Fresh, contract.StallContract):
    pass


def test_a_start_fails_as_it_is_told_to(tmp_path):
    with pytest.raises(errors.LoadFailed, match="no model"):
        program.Served(program.Model("fake", str(tmp_path)))


def test_vectors_tell_texts_apart(folder):
    made = program.Served(model(folder))
    answer = made.client.post("/v1/embeddings", json={"model": program.NAME, "input": ["a", "bc"]})
    assert len({json.dumps(each["embedding"]) for each in answer.json()["data"]}) == 2
    made.end()
