from __future__ import annotations

import argparse
import json

import pytest

from meshserve import errors
from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.llm import vllm_args


def number(said):
    return int(said) * 1000 if said.isdigit() else int(said.removesuffix("k")) * 1000


@pytest.fixture
def parser():
    """Options of every kind that vLLM's parser has."""
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("model_tag", nargs="?")
    made.add_argument("--enforce-eager", action=argparse.BooleanOptionalAction, default=False)
    made.add_argument("--enable-lora", action=argparse.BooleanOptionalAction)
    made.add_argument("--enable-sleep-mode", action=argparse.BooleanOptionalAction)
    made.add_argument("--headless", action="store_true")
    made.add_argument("--disable-docs", action="store_true")
    made.add_argument("--max-model-len", type=int)
    made.add_argument("--overrides", type=json.loads)
    made.add_argument("--served-model-name", nargs="+")
    made.add_argument("--lora-modules", nargs="+")
    for name in (
        "--model",
        "--tensor-parallel-size",
        "--pipeline-parallel-size",
        "--distributed-executor-backend",
    ):
        made.add_argument(name)
    return made


def order(adapters=(), **spec):
    return llm_engine.EngineOrder(llm_spec.LlmSpec("m", "/m", **spec), "/cache/m", dict(adapters))


def test_what_vllm_takes_has_no_faults(parser):
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
def test_a_wrong_key_or_value_is_told_by_its_key(parser, key, value, message):
    assert vllm_args.faults(parser, {key: value, "enforce_eager": True}) == [(key, message)]


def test_the_order_becomes_vllm_s_own_values(parser):
    made = vllm_args.namespace(parser, order(aliases=("too",), tensor_parallel_size=2), {})
    assert (made.model, made.served_model_name, made.tensor_parallel_size) == (
        "/cache/m",
        ["m", "too"],
        "2",
    )
    assert (made.distributed_executor_backend, made.enable_lora) == ("mp", None)


def test_a_single_worker_is_left_to_vllm(parser):
    assert vllm_args.namespace(parser, order(), {}).distributed_executor_backend is None


def test_adapters_are_modules_with_their_paths(parser):
    made = vllm_args.namespace(parser, order({"tone": "/cache/tone"}.items()), {})
    assert made.enable_lora is True
    assert [json.loads(each) for each in made.lora_modules] == [
        {"name": "tone", "path": "/cache/tone"}
    ]


def test_what_a_user_sets_comes_before_a_default(parser):
    defaults = {"enforce_eager": True, "max_model_len": 5}
    made = vllm_args.namespace(parser, order(engine={"enforce_eager": False}), defaults)
    assert (made.enforce_eager, made.max_model_len) == (False, 5)


def test_none_is_vllm_s_own_default(parser):
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
def test_only_what_shares_gpus_can_sleep(parser, share, device, sleeps):
    assert (
        vllm_args.namespace(parser, order(share=share, device=device), {}).enable_sleep_mode
        is sleeps
    )


@pytest.mark.parametrize("engine", [{"max_model_len": "x"}, {"nothing": 1}])
def test_an_order_with_a_fault_is_refused(parser, engine):
    with pytest.raises(errors.InvalidRequest, match=r"max-model-len|nothing"):
        vllm_args.namespace(parser, order(engine=engine), {})


def test_a_parser_that_raises_says_why(parser):
    parser.add_argument("--grow", action=Raising)
    assert vllm_args.faults(parser, {"grow": "x"}) == [("grow", "not that")]


class Raising(argparse.Action):
    def __call__(self, *_):
        raise TypeError("not that")
