from __future__ import annotations

import pytest
import yaml

from meshserve.kubernetes import manifest_yaml


@pytest.mark.parametrize(
    "text",
    ["1e3", "0x1f", "0o17", "1_000", "-1", ".5", "~", "true", "no", "on", "null", "", "1:30"],
)
def test_texts_that_look_otherwise_are_quoted(text: str) -> None:
    written = manifest_yaml.dump({"a": text})
    assert written.strip() in {f"a: '{text}'", f'a: "{text}"'}


def test_texts_of_several_lines_are_readable() -> None:
    document = {"a": "first\n  second\n", "b": 1}
    written = manifest_yaml.dump(document)
    assert "  first\n    second\n" in written
    assert yaml.safe_load(written) == document


def test_a_value_that_is_used_twice_is_written_twice() -> None:
    part = {"a": [1]}
    written = manifest_yaml.dump({"b": part, "c": part})
    assert "&" not in written
    assert yaml.safe_load(written) == {"b": part, "c": part}


def test_several_documents_are_read_again() -> None:
    documents = [{"b": 1, "a": "ä"}, {"c": [1, {"d": "x: y"}]}]
    assert list(yaml.safe_load_all(manifest_yaml.dump_all(documents))) == documents
