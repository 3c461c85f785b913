"""What a TritonPythonModel adds to its configuration: `auto_complete_config(config)`.

Triton calls it before `initialize`, whether there is a config.pbtxt or not. See the section
"auto_complete_config" in the README of its python_backend.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from meshserve import errors
from meshserve.core.values import model

_WORDS = {"TYPE_STRING": "BYTES"}


class CompletedConfig:
    """The configuration that a class completes; Triton calls it ModelConfig.

    Its methods raise ValueError for what contradicts the configuration.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = {"max_batch_size": 0, "input": [], "output": [], **copy.deepcopy(config)}

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as it is now."""
        return self._config

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Set the most rows of a request, 0 without a batch dimension.

        Raises ValueError if the configuration allows more.
        """
        declared = self._config["max_batch_size"]
        if declared > max_batch_size:
            raise ValueError(
                f"the configuration has max_batch_size {declared}, "
                f"auto_complete_config sets {max_batch_size}"
            )
        self._config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Have requests joined; a Python class gets them one by one all the same."""
        self._config.setdefault("dynamic_batching", {})

    def set_model_transaction_policy(self, transaction_policy: Mapping[str, Any]) -> None:
        """Say whether the model is decoupled, which is refused."""
        self._config["model_transaction_policy"] = dict(transaction_policy)

    def add_input(self, input_: Mapping[str, Any]) -> None:
        """Add an input with name, data_type, dims, and perhaps optional."""
        self._add("input", input_, ("name", "data_type", "dims", "optional"))

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Add an output with name, data_type and dims."""
        self._add("output", output, ("name", "data_type", "dims"))

    def _add(self, kind: str, tensor: Mapping[str, Any], known: Sequence[str]) -> None:
        unknown = sorted(set(tensor) - set(known))
        missing = [key for key in ("name", "data_type", "dims") if key not in tensor]
        if unknown or missing:
            raise ValueError(
                f"an {kind} has {', '.join(known)}; "
                f"{'without ' + missing[0] if missing else 'unknown is ' + unknown[0]}"
            )
        added = {**tensor, "dims": list(tensor["dims"])}
        for other in self._config[kind]:
            if other["name"] == added["name"]:
                _check_same(kind, other, added)
                return
        self._config[kind].append(added)


def _check_same(kind: str, declared: Mapping[str, Any], added: Mapping[str, Any]) -> None:
    # Protobuf's JSON has sizes as texts.
    dims = [int(size) for size in declared.get("dims", ())]
    for key, one, other in (
        ("data_type", declared.get("data_type"), added["data_type"]),
        ("dims", dims, added["dims"]),
    ):
        if one and one != other:
            raise ValueError(
                f"{kind} {added['name']!r}: the configuration has {key} {one}, "
                f"auto_complete_config adds {other}"
            )


def complete(class_: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration as the class completes it. Lets what the class raises pass.

    Raises LoadFailed for one that makes the model decoupled.
    """
    add = getattr(class_, "auto_complete_config", None)
    if add is None:
        return dict(config)
    given = CompletedConfig(config)
    returned = add(given)
    completed = (returned if isinstance(returned, CompletedConfig) else given).as_dict()
    if completed.get("model_transaction_policy", {}).get("decoupled"):
        raise errors.LoadFailed("decoupled models are not served: a request has one answer")
    return completed


def tensors(
    declared: Sequence[model.TensorSpec], config: Mapping[str, Any], kind: str
) -> tuple[model.TensorSpec, ...]:
    """Return the declared tensors, and those that the configuration has besides."""
    known = {spec.name for spec in declared}
    rows = [-1] if config.get("max_batch_size") else []
    return (
        *declared,
        *(
            model.TensorSpec(
                tensor["name"], _datatype(tensor["data_type"]), (*rows, *map(int, tensor["dims"]))
            )
            for tensor in config.get(kind, ())
            if tensor["name"] not in known
        ),
    )


def _datatype(word: str) -> str:
    return _WORDS.get(word, str(word).removeprefix("TYPE_"))
