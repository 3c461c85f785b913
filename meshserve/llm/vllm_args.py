"""vLLM's engine arguments, as a user names them in `engine`: checked and parsed by its own parser.

vLLM's command line is the only interface that validates all of them and knows all defaults.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

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
"""Arguments that a user can't set in `engine`, and what decides them instead."""

CHECK_PROGRAM = "from meshserve.llm import vllm_engine; vllm_engine.check_arguments()"
CHECK_TIMEOUT_S = 120.0

logger = logging.getLogger(__name__)


class _Refused(Exception):
    """What the parser would have printed before ending the process."""


# Checked when a configuration is read


def check_in_child(
    sections: Sequence[Mapping[str, object]],
) -> list[list[llm_engine.ArgumentFault]]:
    """Return vLLM's faults with each of several `engine` sections.

    A child process imports vLLM, because that takes seconds, threads and memory that the process
    that reads a configuration need not carry. None are found if vLLM is not installed here, or
    if the child fails: the machines that run the engines will say what is wrong.
    """
    if not any(sections) or importlib.util.find_spec("vllm") is None:
        return [[] for _ in sections]
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHECK_PROGRAM],
            # Not -P: vLLM starts Pythons of its own, and they too must not import files of the
            # current folder.
            env={**os.environ, "PYTHONSAFEPATH": "1"},
            # By its input, and not as an argument, which every user of the machine could read.
            input=json.dumps([dict(section) for section in sections]),
            capture_output=True,
            text=True,
            check=True,
            timeout=CHECK_TIMEOUT_S,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        logger.warning("engine arguments could not be checked: %s", error.stderr or error)
        return [[] for _ in sections]
    # Importing vLLM prints what it likes; the last line is the program's.
    answer: list[list[list[str]]] = json.loads(child.stdout.splitlines()[-1])
    return [[llm_engine.ArgumentFault(*fault) for fault in faults] for faults in answer]


def faults(
    parser: argparse.ArgumentParser, section: Mapping[str, object]
) -> list[llm_engine.ArgumentFault]:
    """Return the parser's faults with one `engine` section, each key checked alone."""
    known = _actions(parser)
    messages = ((key, _fault(parser, known, key, value)) for key, value in section.items())
    return [llm_engine.ArgumentFault(key, message) for key, message in messages if message]


def _fault(
    parser: argparse.ArgumentParser, known: Mapping[str, argparse.Action], key: str, value: object
) -> str:
    if key in OWNED:
        return f"can't be set here: {OWNED[key]}"
    if key not in known:
        near = difflib.get_close_matches(key.replace("-", "_"), known.keys() - OWNED.keys(), 1)
        return "vLLM has no such argument" + (f"; did you mean {near[0]!r}?" if near else "")
    try:
        _parse(parser, list(_words(known[key], value)))
    except _Refused as refused:
        return str(refused).removeprefix(f"argument {_flags(known[key])[0]}: ")
    return ""


def parse_section(
    parser: argparse.ArgumentParser, section: Mapping[str, object]
) -> argparse.Namespace:
    """Return the parser's result for a section without faults."""
    known = _actions(parser)
    return _parse(parser, [word for key in section for word in _words(known[key], section[key])])


def key_of(section: Mapping[str, object], message: str) -> str:
    """Return the key of a section that a message is about, as far as it names one."""
    # vLLM's messages write a key as it is, as an option, or in words.
    text = message.replace("-", "_").replace(" ", "_")
    return next((key for key in section if key in text), next(iter(section)))


# Parsed when an engine starts


def namespace(
    parser: argparse.ArgumentParser, order: llm_engine.EngineOrder, defaults: Mapping[str, object]
) -> argparse.Namespace:
    """Return the parser's result for an order; `defaults` hold unless the user sets them.

    Raises InvalidRequest if vLLM does not take an argument.
    """
    known = _actions(parser)
    values = {**defaults, **order.spec.engine, **_owned(order)}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise errors.InvalidRequest(f"vLLM has no argument {unknown[0]!r}")
    words = [word for key, value in values.items() for word in _words(known[key], value)]
    try:
        return _parse(parser, words)
    except _Refused as refused:
        raise errors.InvalidRequest(
            f"vLLM does not take the arguments of {order.spec.name}: {refused}"
        ) from None


def _owned(order: llm_engine.EngineOrder) -> dict[str, object]:
    spec = order.spec
    owned: dict[str, object] = {
        "model": order.model_path,
        # Without aliases, which the gateway resolves: moving one must change no engine.
        "served_model_name": [spec.name],
        "tensor_parallel_size": spec.tensor_parallel_size,
        "pipeline_parallel_size": spec.pipeline_parallel_size,
    }
    if spec.tensor_parallel_size * spec.pipeline_parallel_size > 1:
        # Without a backend, vLLM runs a single worker inside its core; with one, in a process.
        owned["distributed_executor_backend"] = order.backend
    if order.adapter_paths:
        modules = [
            json.dumps({"name": name, "path": path}) for name, path in order.adapter_paths.items()
        ]
        owned |= {"enable_lora": True, "lora_modules": modules}
    if order.commit:
        owned["revision"] = order.commit
        # A tokenizer of its own is another repository, without this commit.
        if not spec.engine.keys() & {"tokenizer", "tokenizer_revision"}:
            owned["tokenizer_revision"] = order.commit
    if spec.share and spec.device == "cuda":
        owned["enable_sleep_mode"] = True
    return owned


def _actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Return the parser's long options by the names of their values."""
    actions = parser._actions  # noqa: SLF001 - argparse has no public list of them
    return {action.dest: action for action in actions if _flags(action)}


def _flags(action: argparse.Action) -> list[str]:
    return [flag for flag in action.option_strings if flag.startswith("--")]


def _words(action: argparse.Action, value: object) -> Iterator[str]:
    """Yield the words of a command line for a value; none for None, which is vLLM's default."""
    flag = _flags(action)[0]
    is_negatable = isinstance(action, argparse.BooleanOptionalAction)
    if value is None or (value is False and action.nargs == 0 and not is_negatable):
        return
    if isinstance(value, bool) and action.nargs == 0:
        yield flag if value else f"--no-{flag[2:]}"
    elif isinstance(value, (list, tuple)) and action.nargs in {"+", "*"}:
        yield from (flag, *(_word(item) for item in value))
    else:
        # In one word, because argparse takes a separate value that begins with a hyphen for a flag.
        yield f"{flag}={_word(value)}"


def _word(value: object) -> str:
    # vLLM's parser reads JSON where a value is no plain word.
    return value if isinstance(value, str) else json.dumps(value)


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    # A parser that refuses prints why and ends the process.
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return parser.parse_args(words)
    except SystemExit:
        raise _Refused(printed.getvalue().rpartition("error: ")[2].strip()) from None
    except (TypeError, ValueError) as error:
        raise _Refused(str(error)) from error
