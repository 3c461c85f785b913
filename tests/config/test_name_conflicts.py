"""Checks of names on raw documents; test_config.py has their messages in whole files."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshserve.config import name_conflicts

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["a", "b", "1", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "pool", "aliases", "adapters", "version", "models", "pools"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {}, optional={"models": JSON, "pools": JSON, "repositories": JSON, "llms": JSON}
    )
    | JSON
)
def test_any_document_is_checked_without_raising(document: Any) -> None:
    for fault in name_conflicts.check(document):
        assert fault.path[0] in ("models", "repositories", "llms")


def test_two_versions_of_a_model_are_no_duplicate() -> None:
    models = [{"name": "a", "version": "1"}, {"name": "a", "version": 2}]
    assert list(name_conflicts.check({"models": models})) == []


def test_a_version_may_be_text_or_a_number() -> None:
    models = [{"name": "a", "version": "2"}, {"name": "a", "version": 2}]
    assert [fault.earlier for fault in name_conflicts.check({"models": models})] == [
        ("models", 0, "name")
    ]


def test_the_default_pool_always_exists() -> None:
    assert (
        list(
            name_conflicts.check({"models": [{"name": "a", "pool": "default"}], "pools": {"x": {}}})
        )
        == []
    )


def messages(models: Any = (), llms: Any = ()) -> Any:
    document = {"models": list(models), "llms": list(llms)}
    return [
        (fault.path[:2], fault.message, fault.earlier and fault.earlier[:2])
        for fault in name_conflicts.check(document)
    ]


def test_every_pair_of_kinds_collides_once() -> None:
    model = {"name": "a", "aliases": ["b"]}
    first = {"name": "c", "aliases": ["a", "d"], "adapters": [{"name": "b"}]}
    second = {"name": "a", "aliases": ["c"], "adapters": [{"name": "d"}]}
    assert messages([model], [first, second]) == [
        (("llms", 1), "LLM 'a' is the name of a model", ("models", 0)),
        (("llms", 0), "alias 'a' is the name of a model", ("models", 0)),
        (("llms", 1), "alias 'c' is the name of an LLM", ("llms", 0)),
        (("llms", 0), "adapter 'b' is an alias", ("models", 0)),
        (("llms", 1), "adapter 'd' is an alias", ("llms", 0)),
    ]


def test_an_llm_that_is_declared_twice() -> None:
    assert messages(llms=[{"name": "a"}, {"name": "a"}]) == [
        (("llms", 1), "LLM 'a' is given twice", ("llms", 0))
    ]


def test_versions_of_a_model_share_its_name() -> None:
    assert messages([{"name": "a"}, {"name": "a", "version": 2}]) == []
