from __future__ import annotations

from pathlib import Path

import pytest

from meshserve.storage import hub
from tests.llm import hub as stub

REPOSITORY = stub.REPOSITORY


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the hub's cache in a folder of the test's own."""
    from huggingface_hub import constants  # noqa: PLC0415 - costs a third of a second

    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def serve_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the hub's client use the server at this address."""
    from huggingface_hub import constants  # noqa: PLC0415

    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.mark.usefixtures("cache")
def test_the_hub_says_the_commit_of_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stub.serving(tmp_path) as (address, _):
        serve_at(address, monkeypatch)
        assert hub.commit(REPOSITORY) == hub.commit(REPOSITORY, "v2") == stub.COMMIT
        assert hub.commit("org/nobody") == ""


def test_without_the_hub_it_is_the_commit_that_was_downloaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_at("http://127.0.0.1:9", monkeypatch)
    assert hub.commit(REPOSITORY) == ""
    folder = cache / "models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(stub.COMMIT)
    (folder / "snapshots" / "abc").mkdir(parents=True)
    assert hub.commit(REPOSITORY) == stub.COMMIT
    assert (hub.commit(REPOSITORY, "abc"), hub.commit(REPOSITORY, "v2")) == ("abc", "")
