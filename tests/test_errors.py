"""The tree in the docstring of `errors` is documentation for users: the classes must match it."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest
from google.rpc import code_pb2

from meshserve import errors
from tests import support

LINE = re.compile(
    r"^ *[│ ]*[├└]── (?P<name>\w+) +(?P<words>.*?)(?:  +(?P<code>[A-Z_]+) +(?P<status>\d{3}))?$"
)
LINES = {
    match["name"]: match for match in map(LINE.match, (errors.__doc__ or "").splitlines()) if match
}
CLASSES = [
    error_class
    for _, error_class in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error_class, errors.MeshError)
]


def documented_codes(error_class: type[errors.MeshError]) -> tuple[str, int]:
    """Return the codes in the line of the class, or of its nearest base that has codes."""
    for base in error_class.__mro__:
        line = LINES.get(base.__name__)
        if line and line["code"]:
            return line["code"], int(line["status"])
    raise AssertionError(f"{error_class.__name__} has no codes in the tree")


def test_the_tree_has_every_class_and_no_other() -> None:
    names = {error_class.__name__ for error_class in CLASSES}
    assert set(LINES) == names - {"MeshError"}


@pytest.mark.parametrize(
    "error_class",
    [error_class for error_class in CLASSES if error_class is not errors.MeshError],
    ids=lambda error_class: error_class.__name__,
)
def test_a_class_has_the_codes_of_the_tree(error_class: type[errors.MeshError]) -> None:
    codes = code_pb2.Code.Name(error_class.grpc_code), error_class.http_status
    assert codes == documented_codes(error_class)


@pytest.mark.parametrize("error_class", CLASSES, ids=lambda error_class: error_class.__name__)
@pytest.mark.parametrize("retry_after_s", [None, 0.0, 2.5])
def test_pickling_keeps_message_and_wait(
    error_class: type[errors.MeshError], retry_after_s: float | None
) -> None:
    error = error_class("what is wrong: ü", retry_after_s=retry_after_s)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_class
    assert copy.message == str(copy) == "what is wrong: ü"
    assert copy.retry_after_s == retry_after_s


def test_an_error_whose_message_can_t_be_read_has_words() -> None:
    assert errors.words_of(ValueError("bad")) == "ValueError: bad"
    assert errors.words_of(support.Unspeakable()) == "Unspeakable: its message can't be read"
