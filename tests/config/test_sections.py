import pydantic
import pytest

from meshserve.config import sections


class Two(sections.Section):
    one: int = 1


def test_a_section_refuses_keys_that_it_does_not_know():
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Two.model_validate({"one": 1, "two": 2})


def test_a_section_does_not_change():
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Two().one = 2
