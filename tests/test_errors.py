"""The tree in the module's docstring is what users are told: the classes must be it."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest
from google.rpc import code_pb2

from meshserve import errors

LINE = re.compile(
    r"^ *[│ ]*[├└]── (?P<name>\w+) +(?P<words>.*?)(?:  +(?P<code>[A-Z_]+) +(?P<status>\d{3}))?$"
)
DOCUMENTED = [found.groupdict() for found in map(LINE.match, errors.__doc__.splitlines()) if found]
CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.MeshError)
]


def documented(kind):
    """The line of the class, or of the nearest base that has codes in its line."""
    lines = {line["name"]: line for line in DOCUMENTED}
    return next(
        (lines[base.__name__] for base in kind.__mro__ if lines.get(base.__name__, {}).get("code")),
        None,
    )


def test_the_tree_has_every_class_and_no_other():
    assert {line["name"] for line in DOCUMENTED} == {kind.__name__ for kind in CLASSES} - {
        "MeshError"
    }


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if documented(kind)], ids=lambda kind: kind.__name__
)
def test_a_class_has_the_codes_that_the_tree_says(kind):
    line = documented(kind)
    assert (code_pb2.Code.Name(kind.grpc_code), kind.http_status) == (
        line["code"],
        int(line["status"]),
    )


def test_only_the_base_and_what_is_never_on_the_wire_have_no_codes_in_the_tree():
    assert {kind for kind in CLASSES if not documented(kind)} == {
        errors.MeshError,
        errors.ConfigInvalid,
    }


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("retry_after_s", [None, 0.0, 2.5])
def test_pickling_keeps_everything(kind, retry_after_s):
    again = pickle.loads(pickle.dumps(kind("what is wrong: ü", retry_after_s=retry_after_s)))
    assert type(again) is kind
    assert (again.message, str(again), again.retry_after_s) == (
        "what is wrong: ü",
        "what is wrong: ü",
        retry_after_s,
    )
