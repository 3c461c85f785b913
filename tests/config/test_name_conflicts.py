"""What bad files say of names that two things have is in test_llm_keys.py and test_config.py."""

from meshserve.config import name_conflicts


def said(models=(), llms=()):
    return [
        (fault.path[:2], fault.message, fault.earlier and fault.earlier[:2])
        for fault in name_conflicts.duplicates(models, llms)
    ]


def test_every_pair_of_kinds_collides_once():
    model = (0, {"name": "a", "aliases": ["b"]})
    first = (0, {"name": "c", "aliases": ["a", "d"], "adapters": [{"name": "b"}]})
    second = (1, {"name": "a", "aliases": ["c"], "adapters": [{"name": "d"}]})
    assert said([model], [first, second]) == [
        (("llms", 1), "LLM 'a' is the name of a model", ("models", 0)),
        (("llms", 0), "alias 'a' is the name of a model", ("models", 0)),
        (("llms", 1), "alias 'c' is the name of an LLM", ("llms", 0)),
        (("llms", 0), "adapter 'b' is an alias", ("models", 0)),
        (("llms", 1), "adapter 'd' is an alias", ("llms", 0)),
    ]


def test_an_llm_that_is_declared_twice():
    assert said(llms=[(0, {"name": "a"}), (1, {"name": "a"})]) == [
        (("llms", 1), "LLM 'a' is given twice", ("llms", 0))
    ]


def test_versions_of_a_model_share_its_name():
    assert said([(0, {"name": "a"}), (1, {"name": "a", "version": 2})]) == []
