from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.control.api import triton_repository


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("ready", "READY"),
        ("parked", "READY"),
        ("absent", "READY"),
        ("evicting", "READY"),
        ("fetching", "LOADING"),
        ("loading", "LOADING"),
    ],
)
def test_states_in_tritons_words(state, word):
    assert triton_repository.told(state, "")[0] == word


def test_a_failure_is_told_with_its_reason():
    assert triton_repository.told("failed", "it is corrupt") == ("UNAVAILABLE", "it is corrupt")


def test_text_may_come_as_bytes_but_bytes_not_as_text():
    assert triton_repository.as_text(b"{}") == "{}" == triton_repository.as_text("{}")
    assert triton_repository.as_bytes(b"x") == b"x"
    with pytest.raises(errors.InvalidRequest):
        triton_repository.as_bytes("x")
    with pytest.raises(errors.InvalidRequest):
        triton_repository.as_text(b"\xff")
