from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshserve.storage import source_index

KNOWN = source_index.KnownSource("stamp", "sha256:a", "sha256:b", 5, "a.onnx")
KNOWNS = st.builds(
    source_index.KnownSource,
    st.text(),
    st.text(),
    st.text(),
    st.integers(0),
    st.text(),
    st.integers(1),
)


@given(st.text(), KNOWNS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_written_source_is_read(
    tmp_path: Path, uri: str, known: source_index.KnownSource
) -> None:
    kept = source_index.SourceIndex(tmp_path / "sources")
    kept.write(uri, known, tmp_path / "made")
    assert kept.read(uri)[0] == known


def test_an_unknown_source_is_nothing(tmp_path: Path) -> None:
    assert source_index.SourceIndex(tmp_path).read("/a") == ()


@pytest.mark.parametrize("spoiled", [b"", b"{", b"[]", b'{"stamp": 1}', b'{"unknown": 1}', b"\xff"])
def test_an_unreadable_source_is_nothing(tmp_path: Path, spoiled: bytes) -> None:
    kept = source_index.SourceIndex(tmp_path / "sources")
    kept.write("/a", KNOWN, tmp_path / "made")
    for path in (tmp_path / "sources").rglob("*.json"):
        path.write_bytes(spoiled)
    assert kept.read("/a") == ()


def test_the_last_contents_are_known_each_once_and_the_newest_first(tmp_path: Path) -> None:
    kept = source_index.SourceIndex(tmp_path / "sources")
    for stamp in ("a", "b", "c", "d", "e", "b"):
        known = dataclasses.replace(KNOWN, stamp=stamp)
        kept.write("/a", known, tmp_path / "made")
    assert [known.stamp for known in kept.read("/a")] == ["b", "e", "d", "c"]
    assert kept.read("/a")[0].is_of("b")
    assert not dataclasses.replace(KNOWN, stamp="").is_of("")


def test_a_record_holds_no_credentials(tmp_path: Path) -> None:
    kept = source_index.SourceIndex(tmp_path / "sources")
    kept.write("https://user:word@host/a?token=secret", KNOWN, tmp_path / "made")
    written = [path.read_text() + str(path) for path in tmp_path.rglob("*.json")]
    assert len(written) == 1
    assert "word" not in written[0]
    assert "secret" not in written[0]
