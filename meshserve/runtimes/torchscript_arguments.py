"""The arguments of a TorchScript `forward` from inputs that nobody declared.

Its schema tells names and types of arguments, but neither datatypes nor shapes of tensors: those
are passed on as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import datatypes

Arrays = Mapping[str, np.ndarray]
ToTensor = Callable[[np.ndarray], Any]

TENSOR, TENSORS, NAMED_TENSORS = "Tensor", "Tensor…", "Dict[str, Tensor]"

_PLAIN_KINDS = {"float": "iuf", "int": "iu", "bool": "b", "str": "O"}
"""The kinds of numpy's dtypes that a plain argument takes."""

_OPTIONAL = re.compile(r"Optional\[(.*)\]")
_LIST = re.compile(r"List\[(\w+)\]")
_SEVERAL = re.compile(r"List\[Tensor\]|Tuple\[Tensor(?:, Tensor)*\]")
_NUMBERED = re.compile(r"(.+)__(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of `forward`. `kind` is its type without `Optional`.

    A tuple or a list of tensors takes the inputs `<name>__0`, `<name>__1`, …; `count` is the length
    of the tuple, else 0.
    """

    name: str
    kind: str
    is_needed: bool
    is_optional: bool
    count: int = 0


class OpenArguments:
    """The arguments of one program. Raises LoadFailed if it needs one that no input can be."""

    def __init__(self, schema_arguments: Sequence[Any]) -> None:
        arguments = list(map(_argument, schema_arguments))
        self._arguments = {argument.name: argument for argument in arguments if argument.kind}
        unknown = [
            (argument.name, str(schema.type))
            for argument, schema in zip(arguments, schema_arguments, strict=True)
            if argument.is_needed and not argument.kind
        ]
        if unknown:
            name, type_ = unknown[0]
            raise errors.LoadFailed(
                f"forward needs {name!r} of type {type_}, which no input can be"
            )
        self._order = [argument.name for argument in arguments]
        self._named = next(
            (argument for argument in arguments if argument.kind == NAMED_TENSORS), None
        )
        if self._named is not None and len(arguments) > 1:
            raise errors.LoadFailed(
                f"forward takes {self._named.name!r}, a dictionary of tensors, beside other "
                "arguments: it is not clear which inputs belong into it"
            )

    def specs(self) -> tuple[model.TensorSpec, ...]:
        """Return the inputs as far as they are known: their names."""
        return tuple(
            model.TensorSpec(name, "", ())
            for argument in self._arguments.values()
            if argument is not self._named
            for name in _input_names(argument)
        )

    def optional(self) -> frozenset[str]:
        """Return the names of inputs that a request may leave out."""
        arguments = self._arguments.values()
        return frozenset(argument.name for argument in arguments if not _is_required(argument))

    def bind(self, inputs: Arrays, to_tensor: ToTensor) -> dict[str, Any]:
        """Return the keyword arguments for inputs of any shapes.

        Inputs are known by an argument's name or, as in Triton, by one like `INPUT__0` with its
        position. Raises InvalidRequest for inputs that are none, are missing, or that torch has no
        tensor for.
        """
        if self._named is not None:
            return {self._named.name: {key: _tensor(key, inputs[key], to_tensor) for key in inputs}}
        given = self._by_argument(inputs)
        keywords: dict[str, Any] = {}
        for argument in self._arguments.values():
            arrays = given.get(argument.name)
            if arrays is not None:
                keywords[argument.name] = _value(argument, arrays, to_tensor)
            elif _is_required(argument):
                raise errors.InvalidRequest(f"input {argument.name!r} is missing; {self._known()}")
            elif argument.is_needed:
                # It may be None, but has no default, so TorchScript wants it to be given.
                keywords[argument.name] = None
        return keywords

    def _by_argument(self, inputs: Arrays) -> dict[str, dict[str, np.ndarray]]:
        """Return the inputs of each argument, by the argument's name and then in their order."""
        given: dict[str, dict[str, np.ndarray]] = {}
        by_position = not any(self._find(name) for name in inputs)
        for name, array in inputs.items():
            argument = self._find_position(name) if by_position else self._find(name)
            if argument is None:
                raise errors.InvalidRequest(f"the model has no input {name!r}; {self._known()}")
            given.setdefault(argument.name, {})[name] = array
        return given

    def _find(self, name: str) -> Argument | None:
        """Return the argument that an input belongs to by its name."""
        argument = self._arguments.get(name)
        if argument is not None and argument.kind != TENSORS:
            return argument
        numbered = _NUMBERED.fullmatch(name)
        argument = self._arguments.get(numbered[1]) if numbered else None
        return argument if argument is not None and argument.kind == TENSORS else None

    def _find_position(self, name: str) -> Argument | None:
        """Return the argument at the position in a name like `INPUT__0`."""
        numbered = _NUMBERED.fullmatch(name)
        if numbered is None:
            return None
        if len(self._order) == 1 and self._order[0] in self._arguments:
            argument = self._arguments[self._order[0]]
            if argument.kind == TENSORS:
                return argument
        position = int(numbered[2])
        if position >= len(self._order):
            return None
        argument_ = self._arguments.get(self._order[position])
        return None if argument_ is None or argument_.kind == TENSORS else argument_

    def _known(self) -> str:
        names = [name for argument in self._arguments.values() for name in _input_names(argument)]
        return f"it has: {', '.join(names) or 'none'}"


def _argument(schema: Any) -> Argument:
    """Return what a schema says of an argument; the kind is empty if no input can be that."""
    type_ = str(schema.type)
    optional = _OPTIONAL.fullmatch(type_)
    kind, count = optional[1] if optional else type_, 0
    plain = _LIST.fullmatch(kind)
    if _SEVERAL.fullmatch(kind):
        count = 0 if kind.startswith("List") else kind.count("Tensor")
        kind = TENSORS
    elif not (
        kind in (TENSOR, NAMED_TENSORS, *_PLAIN_KINDS) or (plain and plain[1] in _PLAIN_KINDS)
    ):
        kind = ""
    return Argument(schema.name, kind, not schema.has_default_value(), bool(optional), count)


def _is_required(argument: Argument) -> bool:
    return argument.is_needed and not argument.is_optional


def _input_names(argument: Argument) -> list[str]:
    if argument.kind != TENSORS:
        return [argument.name]
    return [f"{argument.name}__{place}" for place in range(argument.count or 1)]


def _value(argument: Argument, arrays: Arrays, to_tensor: ToTensor) -> Any:
    """Return an argument's value from its inputs."""
    if argument.kind == TENSORS:
        return _several(argument, arrays, to_tensor)
    if len(arrays) > 1:
        raise errors.InvalidRequest(f"the inputs {', '.join(arrays)} mean the same argument")
    ((name, array),) = arrays.items()
    if argument.kind == TENSOR:
        return _tensor(name, array, to_tensor)
    return _plain(argument, name, array)


def _several(argument: Argument, arrays: Arrays, to_tensor: ToTensor) -> Any:
    """Return a list or tuple of tensors in the order of the numbers in their inputs' names."""
    numbered = {int(name.rpartition("__")[2]): name for name in arrays}
    count = argument.count or len(arrays)
    if sorted(numbered) != list(range(count)) or len(arrays) != count:
        raise errors.InvalidRequest(
            f"{argument.name!r} takes the inputs {argument.name}__0 to "
            f"{argument.name}__{count - 1}; {', '.join(arrays)} came"
        )
    values = [
        _tensor(numbered[place], arrays[numbered[place]], to_tensor) for place in range(count)
    ]
    return tuple(values) if argument.count else values


def _tensor(name: str, array: np.ndarray, to_tensor: ToTensor) -> Any:
    if array.dtype.hasobject:
        raise errors.InvalidRequest(f"input {name!r} is BYTES: torch has no tensors of texts")
    return to_tensor(array)


def _plain(argument: Argument, name: str, array: np.ndarray) -> Any:
    """Return a number, a text, or a list of them. Raises InvalidRequest for other values."""
    plain = _LIST.fullmatch(argument.kind)
    type_ = plain[1] if plain else argument.kind
    has_shape = array.ndim == 1 if plain else array.size == 1
    if array.dtype.kind not in _PLAIN_KINDS[type_] or not has_shape:
        wanted = f"a list of {type_}, of shape [-1]" if plain else f"one {type_}"
        raise errors.InvalidRequest(
            f"input {name!r} must be {wanted}; "
            f"{datatypes.datatype_of(array.dtype)} of shape {list(array.shape)} came"
        )
    values = array.ravel()
    items = (datatypes.to_texts(values) if type_ == "str" else values).tolist()
    if type_ == "float":
        items = [float(item) for item in items]
    return items if plain else items[0]
