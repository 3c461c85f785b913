from __future__ import annotations

import pytest

from meshserve.core.values import llm_spec
from meshserve.llm import validate_args

SPEC = llm_spec.LlmSpec("m", "/m")


@pytest.mark.edge
@pytest.mark.slow
def test_vllm_s_own_parser_judges_every_key():
    wrong = {"max_modle_len": 5, "dtype": "foo", "max_num_seqs": "x", "port": 80}
    found = validate_args.check_all(
        {"good": {"max_model_len": "1k", "enforce_eager": True}, "bad": wrong}
    )
    assert found["good"] == []
    assert [key for key, _ in found["bad"]] == list(wrong)
    assert "did you mean 'max_model_len'" in dict(found["bad"])["max_modle_len"]
    assert "bfloat16" in dict(found["bad"])["dtype"]


def test_without_arguments_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(validate_args, "PROGRAM", "raise SystemExit(1)")
    assert validate_args.check({}, SPEC) == []


def test_what_can_t_be_checked_is_left_to_the_engine(monkeypatch, caplog):
    monkeypatch.setattr(validate_args, "PROGRAM", "raise SystemExit('vLLM is broken')")
    assert validate_args.check({"dtype": "foo"}, SPEC) == []
    assert "vLLM is broken" in caplog.text
