from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshserve import errors
from tests.contracts import engine as contract
from tests.llm import program


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text("{}")
    return str(folder)


def model(folder: str) -> program.Model:
    return program.Model(
        "fake", folder, {program.ADAPTER: folder}, {"stall_timeout_s": contract.STALL_S}
    )


@pytest.fixture(scope="module")
def served(folder: str) -> Iterator[program.Served]:
    server = program.Served(model(folder))
    yield server
    server.end()


class TestFakeEngine(contract.EngineContract):
    """It keeps the contract that vLLM keeps."""


class Fresh:
    @pytest.fixture
    def served(self, folder: str) -> Iterator[program.Served]:
        server = program.Served(model(folder))
        yield server
        server.end()


class TestFakeEngineKilled(Fresh, contract.FailureContract):
    pass


class TestFakeEngineStopped(Fresh, contract.StallContract):
    pass


def test_a_start_fails_if_a_test_wants_it(tmp_path: Path) -> None:
    with pytest.raises(errors.LoadFailed, match="no model"):
        program.Served(program.Model("fake", str(tmp_path)))


def test_vectors_tell_texts_apart(folder: str) -> None:
    server = program.Served(model(folder))
    answer = server.client.post(
        "/v1/embeddings", json={"model": program.NAME, "input": ["a", "bc"]}
    )
    assert len({json.dumps(vector["embedding"]) for vector in answer.json()["data"]}) == 2
    server.end()
