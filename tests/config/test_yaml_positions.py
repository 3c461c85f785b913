from __future__ import annotations

from typing import Any

import pytest
import yaml

from meshserve import errors
from meshserve.config import yaml_positions

TEXT = """\
a: 1
b:
  - x: {y: 2}
  -
    z: 3
5: number
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ((), 1),
        (("a",), 1),
        (("b", 0), 3),
        (("b", 0, "x", "y"), 3),
        (("b", 1, "z"), 5),
        ((5,), 6),
        (("b", 1, "w", 7), 5),
        (("q",), 1),
    ],
)
def test_the_line_of_a_path_or_of_the_nearest_entry_around_it(path: Any, line: int) -> None:
    assert yaml_positions.read(TEXT, "f").line(path) == line


def test_the_document_is_what_yaml_says() -> None:
    assert yaml_positions.read(TEXT, "f").document == yaml.safe_load(TEXT)


def test_merged_keys_have_the_line_of_their_mapping() -> None:
    positioned = yaml_positions.read("a: &a {x: 1}\nb:\n  <<: *a\n  <<: {z: 3}\n", "f")
    assert positioned.document["b"] == {"x": 1, "z": 3}
    assert (positioned.repeated, positioned.line(("b", "x"))) == ((), 2)


def test_keys_given_twice_at_any_depth() -> None:
    repeated = yaml_positions.read("a:\n  - b: 1\n    c: 2\n    b: 3\n", "f").repeated
    assert [(fault.path, fault.message) for fault in repeated] == [
        (("a", 0, "b"), "given twice: first on line 2, again on line 4")
    ]


BROKEN = {
    "open list": ("a: [\n", "f:2:1: invalid YAML: "),
    "tab": ("a: 1\n\tb: 2\n", "f:2:1: invalid YAML: "),
    "two documents": ("a: 1\n---\nb: 2\n", "f:2:1: invalid YAML: "),
    "code": (
        "x: !!python/object:os.system {}\n",
        "f:1:4: invalid YAML: could not determine a constructor",
    ),
    "itself": ("&a [*a]\n", "f:1:1: invalid YAML: a value that contains itself"),
    "list as key": ("? [a]\n: 2\n", "f:1:3: invalid YAML: "),
    "control character": ("é: 1\na: \x07\n", "f:2: invalid YAML: "),
}


@pytest.mark.parametrize(("text", "begin"), BROKEN.values(), ids=BROKEN)
def test_a_syntax_error_has_line_and_column(text: Any, begin: Any) -> None:
    with pytest.raises(errors.ConfigInvalid) as caught:
        yaml_positions.read(text, "f")
    assert caught.value.message.startswith(begin)
    assert "\n" not in caught.value.message
