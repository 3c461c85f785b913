from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.llm import vllm_args


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    """A parser with options of every kind that vLLM's has."""
    fake = argparse.ArgumentParser(add_help=False)
    fake.add_argument("model_tag", nargs="?")
    fake.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction, default=False)
    fake.add_argument("--enable-lora", action=argparse.BooleanOptionalAction)
    fake.add_argument("--enable-sleep-mode", action=argparse.BooleanOptionalAction)
    fake.add_argument("--headless", action="store_true")
    fake.add_argument("--disable-docs", action="store_true")
    fake.add_argument("--max-model-len", type=int)
    fake.add_argument("--overrides", type=json.loads)
    fake.add_argument("--served-model-name", nargs="+")
    fake.add_argument("--lora-modules", nargs="+")
    for name in (
        "--model",
        "--tensor-parallel-size",
        "--pipeline-parallel-size",
        "--distributed-executor-backend",
        "--revision",
        "--tokenizer-revision",
        "--tokenizer",
    ):
        fake.add_argument(name)
    return fake


def order(adapters: Iterable[tuple[str, str]] = (), **spec: Any) -> llm_engine.EngineOrder:
    return llm_engine.EngineOrder(llm_spec.LlmSpec("m", "/m", **spec), "/cache/m", dict(adapters))


def test_valid_arguments_have_no_faults(parser: argparse.ArgumentParser) -> None:
    engine = {
        "max_model_len": 5,
        "enforce_eager": True,
        "overrides": {"a": [1]},
        "disable_docs": False,
    }
    assert vllm_args.faults(parser, engine) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_modle_len", 5, "vLLM has no such argument; did you mean 'max_model_len'?"),
        ("enforce-eager", True, "vLLM has no such argument; did you mean 'enforce_eager'?"),
        ("quite_something_else", 5, "vLLM has no such argument"),
        ("max_model_len", "x", "invalid int value: 'x'"),
        ("max_model_len", True, "invalid int value: 'true'"),
        ("tensor_parallel_size", 2, "can't be set here: it stands beside `engine`"),
    ],
)
def test_a_wrong_key_or_value_is_a_fault_with_its_key(
    parser: argparse.ArgumentParser, key: str, value: object, message: str
) -> None:
    assert vllm_args.faults(parser, {key: value, "enforce_eager": True}) == [(key, message)]


def test_an_order_becomes_vllms_values(parser: argparse.ArgumentParser) -> None:
    args = vllm_args.namespace(parser, order(aliases=("too",), tensor_parallel_size=2), {})
    assert (args.model, args.served_model_name, args.tensor_parallel_size) == (
        "/cache/m",
        ["m"],
        "2",
    )
    assert (args.distributed_executor_backend, args.enable_lora) == ("mp", None)


def test_a_single_worker_is_left_to_vllm(parser: argparse.ArgumentParser) -> None:
    assert vllm_args.namespace(parser, order(), {}).distributed_executor_backend is None


def test_a_known_commit_is_the_revision(parser: argparse.ArgumentParser) -> None:
    pinned = dataclasses.replace(order(engine={"revision": "main"}), commit="c0ffee")
    args = vllm_args.namespace(parser, pinned, {})
    assert (args.revision, args.tokenizer_revision) == ("c0ffee", "c0ffee")
    other = dataclasses.replace(order(engine={"tokenizer": "org/other"}), commit="c0ffee")
    assert vllm_args.namespace(parser, other, {}).tokenizer_revision is None


def test_adapters_become_lora_modules(parser: argparse.ArgumentParser) -> None:
    args = vllm_args.namespace(parser, order({"tone": "/cache/tone"}.items()), {})
    assert args.enable_lora is True
    assert [json.loads(module) for module in args.lora_modules] == [
        {"name": "tone", "path": "/cache/tone"}
    ]


def test_a_users_value_overrides_a_default(parser: argparse.ArgumentParser) -> None:
    defaults = {"enforce_eager": True, "max_model_len": 5}
    args = vllm_args.namespace(parser, order(engine={"enforce_eager": False}), defaults)
    assert (args.enforce_eager, args.max_model_len) == (False, 5)


def test_none_is_vllms_own_default(parser: argparse.ArgumentParser) -> None:
    assert (
        vllm_args.namespace(
            parser, order(engine={"enforce_eager": None}), {"enforce_eager": True}
        ).enforce_eager
        is False
    )


@pytest.mark.parametrize(
    ("share", "device", "sleeps"),
    [("group", "cuda", True), ("", "cuda", None), ("group", "cpu", None)],
)
def test_only_engines_that_share_gpus_get_sleep_mode(
    parser: argparse.ArgumentParser, share: str, device: str, sleeps: bool | None
) -> None:
    assert (
        vllm_args.namespace(parser, order(share=share, device=device), {}).enable_sleep_mode
        is sleeps
    )


@pytest.mark.parametrize("engine", [{"max_model_len": "x"}, {"nothing": 1}])
def test_an_order_with_a_fault_raises(
    parser: argparse.ArgumentParser, engine: dict[str, Any]
) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"max-model-len|nothing"):
        vllm_args.namespace(parser, order(engine=engine), {})


def test_an_error_that_a_parser_raises_is_a_fault(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--grow", action=Raising)
    assert vllm_args.faults(parser, {"grow": "x"}) == [("grow", "not that")]


class Raising(argparse.Action):
    def __call__(self, *_: object) -> None:
        raise TypeError("not that")


# In a child process


@pytest.mark.edge
@pytest.mark.slow
def test_vllms_own_parser_checks_every_key() -> None:
    wrong = {"max_modle_len": 5, "dtype": "foo", "max_num_seqs": "x", "port": 80}
    good, bad = vllm_args.check_in_child([{"max_model_len": "1k", "enforce_eager": True}, wrong])
    assert good == []
    assert [fault.key for fault in bad] == list(wrong)
    assert "did you mean 'max_model_len'" in dict(bad)["max_modle_len"]
    assert "bfloat16" in dict(bad)["dtype"]


def test_no_child_is_started_for_empty_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_args, "CHECK_PROGRAM", "raise SystemExit(1)")
    assert vllm_args.check_in_child([{}, {}]) == [[], []]


def test_a_check_that_fails_finds_nothing_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vllm_args, "CHECK_PROGRAM", "raise SystemExit('vLLM is broken')")
    assert vllm_args.check_in_child([{"dtype": "foo"}]) == [[]]
    assert "vLLM is broken" in caplog.text


def test_a_message_is_about_the_key_that_it_names() -> None:
    section = {"max_model_len": 1, "tool_call_parser": "x"}
    assert vllm_args.key_of(section, "requires --tool-call-parser") == "tool_call_parser"
    assert vllm_args.key_of(section, "something else") == "max_model_len"
    assert vllm_args.key_of(section, "invalid tool call parser: x") == "tool_call_parser"


def test_a_good_section_is_parsed_whole(parser: argparse.ArgumentParser) -> None:
    args = vllm_args.parse_section(parser, {"max_model_len": 5, "enforce_eager": True})
    assert (args.max_model_len, args.enforce_eager) == (5, True)


def test_a_check_imports_nothing_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the current folder was looked into')")
    monkeypatch.chdir(tmp_path)
    # As vLLM does: it inspects some models in programs of its own.
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import json'], check=1)"
    monkeypatch.setattr(
        vllm_args, "CHECK_PROGRAM", f"{inner}; import json; print(json.dumps([[['a', 'b']]]))"
    )
    assert vllm_args.check_in_child([{"a": 1}]) == [[("a", "b")]], caplog.text
