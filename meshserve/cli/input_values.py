"""The inputs of `meshserve infer`: values, files and standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from meshserve import errors


def inputs(given: Sequence[str]) -> Any:
    """Return what `Client.predict` takes: values by name, or plain values for a single input.

    Raises ConfigInvalid for a value or file that cannot be read.
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals:
            values[name] = _value(text, value)
        elif len(given) == 1:
            return _all_inputs(text)
        else:
            raise errors.ConfigInvalid(
                f"--input {text}: a file has all inputs, so it is given alone; "
                "a single one is NAME=VALUE"
            )
    return values


def _value(text: str, value: str) -> Any:
    if value.startswith("@"):
        return _file(value[1:])
    # YAML holds all of JSON, and lets text on a command line do without quotes.
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise errors.ConfigInvalid(
            f"--input {text}: the value is no JSON; expected something like NAME=[[1, 2], [3, 4]]"
        ) from None


def _all_inputs(path: str) -> Any:
    """Return the content of a JSON file, which may be a whole request of the REST protocol."""
    content = _json(sys.stdin.read(), "standard input") if path == "-" else _file(path)
    tensors = content.get("inputs") if isinstance(content, dict) else None
    # A model may have an input called `inputs`: only a list of whole tensors is a request.
    is_request = isinstance(tensors, list) and all(
        isinstance(tensor, dict) and {"name", "shape", "data"} <= tensor.keys()
        for tensor in tensors
    )
    if is_request and tensors:
        return {tensor["name"]: _tensor(tensor) for tensor in tensors}
    return content


def _tensor(tensor: dict[str, Any]) -> Any:
    try:
        return np.asarray(tensor["data"]).reshape(tensor["shape"]).tolist()
    except (ValueError, TypeError):
        raise errors.ConfigInvalid(
            f"--input: the data of {tensor['name']!r} does not fill its shape {tensor['shape']}"
        ) from None


def _file(name: str) -> Any:
    path = Path(name)
    try:
        if path.suffix == ".npy":
            # A pickle is code, and the file may be anybody's.
            return np.load(path, allow_pickle=False)
        return _json(path.read_text(encoding="utf-8"), name)
    except OSError as error:
        raise errors.ConfigInvalid(
            f"--input: {name}: {(error.strerror or str(error)).lower()}"
        ) from None
    except ValueError as error:
        raise errors.ConfigInvalid(f"--input: {name}: {error}") from None


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise errors.ConfigInvalid(
            f"--input: {name}:{error.lineno}:{error.colno}: invalid JSON: {error.msg.lower()}"
        ) from None
