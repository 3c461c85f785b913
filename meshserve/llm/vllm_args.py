"""vLLM's engine arguments, as a user names them in `engine`: put into its command line, and judged by its own parser."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
from collections.abc import Iterator, Mapping

from meshserve import errors
from meshserve.core.interfaces import llm_engine

OWNED = {
    "model": "it is the LLM's `uri`",
    "model_tag": "it is the LLM's `uri`",
    "served_model_name": "they are the LLM's `name` and `aliases`",
    "tensor_parallel_size": "it stands beside `engine`",
    "pipeline_parallel_size": "it stands beside `engine`",
    "data_parallel_size": "set `replicas`",
    "distributed_executor_backend": "it follows from where the GPUs are",
    "lora_modules": "set `adapters`",
    "enable_sleep_mode": "set `share`",
    "disable_log_stats": "the engine is watched by its statistics",
    "host": "the gateway listens",
    "port": "the gateway listens",
    "uds": "the gateway listens",
    "root_path": "the gateway routes",
    "api_key": "the gateway authenticates",
    "ssl_keyfile": "the gateway ends TLS",
    "ssl_certfile": "the gateway ends TLS",
    "ssl_ca_certs": "the gateway ends TLS",
    "config": "this file is the configuration",
    "headless": "the mesh starts every process",
    "grpc": "the gateway speaks gRPC",
    "api_server_count": "set `replicas`",
}
"""What may not stand in `engine`, and where it comes from instead."""

Fault = tuple[str, str]
"""A key of `engine`, and what is wrong with it."""


class _Refused(Exception):
    """What the parser would have said before ending the process."""


def faults(parser: argparse.ArgumentParser, engine: Mapping[str, object]) -> list[Fault]:
    """What is wrong with an LLM's `engine`, each key judged alone. Empty: vLLM takes it."""
    known = _actions(parser)
    found = ((key, _fault(parser, known, key, value)) for key, value in engine.items())
    return [(key, message) for key, message in found if message]


def _fault(
    parser: argparse.ArgumentParser, known: Mapping[str, argparse.Action], key: str, value: object
) -> str:
    if key in OWNED:
        return f"can't be set here: {OWNED[key]}"
    if key not in known:
        near = difflib.get_close_matches(key.replace("-", "_"), known.keys() - OWNED.keys(), 1)
        return "vLLM has no such argument" + (f"; did you mean {near[0]!r}?" if near else "")
    try:
        _parsed(parser, list(_words(known[key], value)))
    except _Refused as refused:
        return str(refused).removeprefix(f"argument {_flags(known[key])[0]}: ")
    return ""


def namespace(
    parser: argparse.ArgumentParser, order: llm_engine.EngineOrder, defaults: Mapping[str, object]
) -> argparse.Namespace:
    """All of the order as vLLM's parser makes it of a command line; `defaults` hold where the user says nothing. Raises InvalidRequest."""
    known = _actions(parser)
    told = {**defaults, **order.spec.engine, **_owned(order)}
    unknown = sorted(told.keys() - known.keys())
    if unknown:
        raise errors.InvalidRequest(f"vLLM has no argument {unknown[0]!r}")
    try:
        return _parsed(
            parser, [word for key, value in told.items() for word in _words(known[key], value)]
        )
    except _Refused as refused:
        raise errors.InvalidRequest(
            f"vLLM does not take the arguments of {order.spec.name}: {refused}"
        ) from None


def _owned(order: llm_engine.EngineOrder) -> dict[str, object]:
    spec = order.spec
    owned: dict[str, object] = {
        "model": order.model_path,
        "served_model_name": [spec.name, *spec.aliases],
        "tensor_parallel_size": spec.tensor_parallel_size,
        "pipeline_parallel_size": spec.pipeline_parallel_size,
    }
    if spec.tensor_parallel_size * spec.pipeline_parallel_size > 1:
        # vLLM runs a single worker inside its core, where it can: told a backend, it would give it a process of its own.
        owned["distributed_executor_backend"] = order.backend
    if order.adapter_paths:
        modules = [
            json.dumps({"name": name, "path": path}) for name, path in order.adapter_paths.items()
        ]
        owned |= {"enable_lora": True, "lora_modules": modules}
    if spec.share and spec.device == "cuda":
        owned["enable_sleep_mode"] = True
    return owned


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """The parser's long options, by the names of their values."""
    return {action.dest: action for action in parser._actions if _flags(action)}  # noqa: SLF001 - argparse has no public list of them


def _flags(action: argparse.Action) -> list[str]:
    return [flag for flag in action.option_strings if flag.startswith("--")]


def _words(action: argparse.Action, value: object) -> Iterator[str]:
    """The words of a command line that give the option this value: none for None, which is vLLM's own default."""
    flag = _flags(action)[0]
    if value is None or (
        value is False
        and action.nargs == 0
        and not isinstance(action, argparse.BooleanOptionalAction)
    ):
        return
    if isinstance(value, bool) and action.nargs == 0:
        yield flag if value else f"--no-{flag[2:]}"
    elif isinstance(value, (list, tuple)) and action.nargs in {"+", "*"}:
        yield from (flag, *(_word(each) for each in value))
    else:
        yield f"{flag}={_word(value)}"


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """As the parser says it, which would print what is wrong and end the process."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(words)
    except SystemExit:
        raise _Refused(said.getvalue().rpartition("error: ")[2].strip()) from None
    except (TypeError, ValueError) as error:
        raise _Refused(str(error)) from error
