"""Compare the tensors that are declared for a model with the model's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import datatypes, options

Specs = Sequence[model.TensorSpec]
_POSITION = re.compile(r".+__(\d{1,6})")


def pair(
    declared: Specs, actual: Specs, kind: str
) -> tuple[tuple[model.TensorSpec, model.TensorSpec], ...]:
    """Return each declared tensor with the model's own that it means.

    Tensors are paired by name, or by position if no declared name is one of the model's: by the
    position in names like `INPUT__0` if all have one, as Triton does, else by that in the list.
    `kind` is `input` or `output`, for messages. Raises LoadFailed for a name that the model does
    not have.
    """
    by_name = {spec.name: spec for spec in actual}
    unknown = [spec.name for spec in declared if spec.name not in by_name]
    if not unknown:
        return tuple((spec, by_name[spec.name]) for spec in declared)
    if len(unknown) == len(declared):
        positions = named_positions(declared, len(actual))
        if positions is not None:
            return tuple(
                (spec, actual[position]) for spec, position in zip(declared, positions, strict=True)
            )
        if len(declared) == len(actual):
            return tuple(zip(declared, actual, strict=True))
    raise _unknown_name(unknown[0], by_name, kind)


def named_positions(declared: Specs, count: int) -> list[int] | None:
    """Return the positions in names of Triton's form `<name>__<position>`.

    None if a name has another form. Raises LoadFailed for a position of `count` or more, or twice.
    """
    matches = [_POSITION.fullmatch(spec.name) for spec in declared]
    positions = [int(match[1]) for match in matches if match]
    if len(positions) < len(declared):
        return None
    for spec, position in zip(declared, positions, strict=True):
        if position >= count:
            raise errors.LoadFailed(
                f"{spec.name!r} is declared, but the model's last one is number {count - 1}"
            )
        if positions.count(position) > 1:
            raise errors.LoadFailed(f"two tensors are declared for number {position}")
    return positions


def _unknown_name(name: str, known: Iterable[str], kind: str) -> errors.LoadFailed:
    return errors.LoadFailed(
        f"the declared {kind} {name!r} does not exist in the model{options.suggest(name, known)}"
    )


def check_known_names(names: Iterable[str], specs: Specs) -> None:
    """Raise LoadFailed if one of the optional inputs is no input."""
    known = {spec.name for spec in specs}
    for name in names:
        if name not in known:
            raise _unknown_name(name, known, "input")


def check_names(declared: Specs, actual: Specs, kind: str) -> None:
    """Raise LoadFailed for a declared name that the model does not have."""
    names = {spec.name for spec in actual}
    for spec in declared:
        if spec.name not in names:
            raise _unknown_name(spec.name, names, kind)


def check_complete(declared: Specs, needed: Iterable[str], kind: str) -> None:
    """Raise LoadFailed if the declaration leaves out a tensor that the model needs."""
    names = {spec.name for spec in declared}
    for name in needed:
        if name not in names:
            raise errors.LoadFailed(
                f"the model needs the {kind} {name!r}, which the declaration leaves out"
            )


def check_true(declared: model.TensorSpec, actual: model.TensorSpec, kind: str) -> None:
    """Raise LoadFailed if the model contradicts a declared datatype or shape.

    An input may be declared narrower than the model takes it (a size where the model takes any),
    an output wider than the model gives it.
    """
    if declared.datatype != actual.datatype:
        raise errors.LoadFailed(
            f"{kind} {declared.name!r} is declared {declared.datatype}, "
            f"but the model has {actual.datatype}"
        )
    wide, narrow = (actual, declared) if kind == "input" else (declared, actual)
    if not covers(wide.shape, narrow.shape):
        raise errors.LoadFailed(
            f"{kind} {declared.name!r} is declared with shape {list(declared.shape)}, "
            f"but the model has {list(actual.shape)}"
        )


def covers(wide: Sequence[int], narrow: Sequence[int]) -> bool:
    """Return whether every array of shape `narrow` has the shape `wide` as well."""
    return len(wide) == len(narrow) and all(
        size in (-1, narrow_size) for size, narrow_size in zip(wide, narrow, strict=True)
    )


def check_specs(specs: Specs, kind: str) -> None:
    """Raise LoadFailed for unknown datatypes, impossible shapes and repeated names."""
    for spec in specs:
        if spec.datatype not in datatypes.NUMPY_TYPES:
            near = options.suggest(spec.datatype, datatypes.NUMPY_TYPES)
            raise errors.LoadFailed(
                f"{kind} {spec.name!r} has datatype {spec.datatype!r}, which does not exist{near}"
            )
        if any(size < -1 for size in spec.shape):
            raise errors.LoadFailed(
                f"{kind} {spec.name!r} has shape {list(spec.shape)}: "
                "a dimension is a size, or -1 for any"
            )
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise errors.LoadFailed(f"two {kind}s have the same name: {', '.join(sorted(names))}")


def agree(declared: Specs, actual: Specs, kind: str) -> dict[model.TensorSpec, str]:
    """Return the tensors to serve, each with the model's own name for it.

    These are the declared ones after a check, or the model's own if none are declared.
    Raises LoadFailed if the declaration is wrong.
    """
    if not declared:
        return {spec: spec.name for spec in actual}
    check_specs(declared, kind)
    agreed = {}
    for spec, own in pair(declared, actual, kind):
        if is_one_element(spec.shape, own.shape):
            spec = replace(spec, shape=own.shape)  # noqa: PLW2901 the one to serve from here on
        check_true(spec, own, kind)
        agreed[spec] = own.name
    return agreed


def is_one_element(declared: Sequence[int], own: Sequence[int]) -> bool:
    """Return whether a shape is declared as the model's own with a last dimension of 1.

    Triton's configurations can't write the shape of a scalar, so they write [1], or several 1.
    """
    if not own:
        return bool(declared) and all(size == 1 for size in declared)
    return len(declared) == len(own) + 1 and declared[-1] == 1 and covers(own, declared[:-1])


def have_rows(specs: Iterable[model.TensorSpec]) -> bool:
    """Return whether the first dimension of every tensor may have any size."""
    return all(spec.shape[:1] == (-1,) for spec in specs)


def rows_joined(
    spec: model.ModelSpec,
    tensors: Iterable[model.TensorSpec],
    *,
    is_batchable: bool,
    is_known: bool,
) -> tuple[bool, bool]:
    """Return whether a model has a batch dimension, and whether rows of requests may be joined.

    `is_batchable`: a probe kept rows apart, which shows that the first dimension may be a batch,
    but not that rows never influence each other. `is_known`: the kind of model guarantees that.
    By `batching: true` the model's owner guarantees both.
    """
    has_owner_word = spec.batching is True
    has_rows = have_rows(tensors) and (is_batchable or has_owner_word)
    return has_rows, has_rows and spec.batching is not False and (has_owner_word or is_known)


def rows_max(spec: model.ModelSpec, signature: model.Signature) -> int:
    """Return the most rows that one joined run takes."""
    return min(spec.max_batch_size, signature.rows_max or spec.max_batch_size)


def learn(answer: Mapping[str, np.ndarray]) -> tuple[model.TensorSpec, ...]:
    """Return the outputs that an answer of any shapes shows: of their sizes it says nothing."""
    return tuple(
        datatypes.spec_for(name, array, (-1,) * array.ndim) for name, array in answer.items()
    )


def check_requested(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise InvalidRequest if an output that a request names is none of the known ones."""
    known = tuple(known)
    for name in names:
        if name not in known:
            raise errors.InvalidRequest(
                f"the model has no output {name!r}; it has: {', '.join(known)}"
            )


def read_sample(spec: model.ModelSpec, inputs: Specs) -> dict[str, np.ndarray] | None:
    """Return the sample of a declaration as arrays of the inputs' datatypes, None without one.

    Raises LoadFailed for a sample that does not fit the inputs.
    """
    if not spec.sample:
        return None
    values = json.loads(spec.sample)
    check_complete_sample(values, inputs)
    return {input_.name: _sampled(input_, values[input_.name]) for input_ in inputs}


def check_no_sample(spec: model.ModelSpec) -> None:
    """Raise LoadFailed for a sample of a model without declared inputs, which give it datatypes."""
    if spec.sample:
        raise errors.LoadFailed(
            "a sample has no datatypes: declare inputs: [{name, datatype, shape}] beside it"
        )


def check_complete_sample(values: Mapping[str, object], inputs: Specs) -> None:
    """Raise LoadFailed unless a sample has the inputs, and nothing else."""
    names = [input_.name for input_ in inputs]
    if sorted(values) != sorted(names):
        raise errors.LoadFailed(
            f"the sample has {', '.join(sorted(values))}; the model takes {', '.join(names)}"
        )


def _sampled(spec: model.TensorSpec, values: object) -> np.ndarray:
    dtype = datatypes.NUMPY_TYPES[spec.datatype]
    try:
        if spec.datatype == "BYTES":
            array = datatypes.to_bytes(np.asarray(values, np.object_))
        elif spec.datatype == "BF16":
            # bfloat16 is the upper half of a float32.
            numbers = np.asarray(values, np.float32)
            array = (numbers.view(np.uint32) >> 16).astype(np.uint16)
        else:
            # `null` stands for a missing number, as in requests.
            array = np.asarray(values, np.float64 if dtype.kind == "f" else dtype).astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise errors.LoadFailed(
            f"the sample's {spec.name!r} is no {spec.datatype} tensor: {error}"
        ) from None
    if not covers(spec.shape, array.shape):
        raise errors.LoadFailed(
            f"the sample's {spec.name!r} has shape {list(array.shape)}, "
            f"the model takes {list(spec.shape)}"
        )
    return array


def refused_sample(cause: Exception) -> errors.LoadFailed:
    """Return the error of a model that refuses its own sample."""
    return errors.LoadFailed(f"the model refuses the sample: {cause}")
