"""Checks across entries, on documents of any shape. What they say in whole files is in test_config.py."""

from hypothesis import given
from hypothesis import strategies as st

from meshserve.config import checks

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
def test_any_document_is_checked_without_raising(document):
    for fault in checks.across(document):
        assert fault.path[0] in ("models", "repositories", "llms")


def test_two_versions_of_a_model_are_no_duplicate():
    models = [{"name": "a", "version": "1"}, {"name": "a", "version": 2}]
    assert list(checks.across({"models": models})) == []


def test_a_version_is_the_same_as_text_and_as_number():
    models = [{"name": "a", "version": "2"}, {"name": "a", "version": 2}]
    assert [fault.earlier for fault in checks.across({"models": models})] == [("models", 0, "name")]


def test_the_default_pool_is_always_there():
    assert (
        list(checks.across({"models": [{"name": "a", "pool": "default"}], "pools": {"x": {}}}))
        == []
    )
