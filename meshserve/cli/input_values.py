"""What a user gives a model on the command line: values, files, standard input."""

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
    """Values for a client: by name, or as they are for a model of one input. Raises ConfigInvalid for what can't be read."""
    named: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if equals:
            named[name] = _value(text, value)
        elif len(given) == 1:
            return _whole(text)
        else:
            raise errors.ConfigInvalid(
                f"--input {text}: a file has all inputs, so it is given alone; a single one is NAME=VALUE"
            )
    return named


def _value(text: str, value: str) -> Any:
    if value.startswith("@"):
        return _file(value[1:])
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise errors.ConfigInvalid(
            f"--input {text}: the value is no JSON; expected something like NAME=[[1, 2], [3, 4]]"
        ) from None


def _whole(place: str) -> Any:
    read = _json(sys.stdin.read(), "standard input") if place == "-" else _file(place)
    listed = read.get("inputs") if isinstance(read, dict) else None
    is_request = isinstance(listed, list) and all(
        isinstance(tensor, dict) and {"name", "shape", "data"} <= tensor.keys() for tensor in listed
    )
    return {tensor["name"]: _tensor(tensor) for tensor in listed} if is_request and listed else read


def _tensor(tensor: dict[str, Any]) -> Any:
    try:
        return np.asarray(tensor["data"]).reshape(tensor["shape"]).tolist()
    except (ValueError, TypeError):
        raise errors.ConfigInvalid(
            f"--input: the data of {tensor['name']!r} does not fill its shape {tensor['shape']}"
        ) from None


def _file(place: str) -> Any:
    path = Path(place)
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        return _json(path.read_text(encoding="utf-8"), place)
    except OSError as error:
        raise errors.ConfigInvalid(
            f"--input: {place}: {(error.strerror or str(error)).lower()}"
        ) from None
    except ValueError as error:
        raise errors.ConfigInvalid(f"--input: {place}: {error}") from None


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise errors.ConfigInvalid(
            f"--input: {place}:{error.lineno}:{error.colno}: invalid JSON: {error.msg.lower()}"
        ) from None
