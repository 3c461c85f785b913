from __future__ import annotations

import pytest

from meshserve.core.llm import public_reason


@pytest.mark.parametrize(
    ("reason", "heard"),
    [
        ("no config.json in '/srv/models/tiny'", "no config.json in 'tiny'"),
        ("/srv/models/tiny/model.gguf: bad magic", "model.gguf: bad magic"),
        ("see https://docs.vllm.ai/en/latest/a and org/tiny", None),
        ("1/2 of 3 GiB; /v1", None),
        ("it took (/a/b/c, /d/e/f/)", "it took (c, )"),
    ],
)
def test_callers_hear_no_paths(reason: str, heard: str | None) -> None:
    assert public_reason.for_callers(reason) == (reason if heard is None else heard)
