"""What was declared of a model held against what is true of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import datatypes, options

Specs = Sequence[model.TensorSpec]


def pair(
    declared: Specs, found: Specs, what: str
) -> tuple[tuple[model.TensorSpec, model.TensorSpec], ...]:
    """Each declared tensor with the one it means: by name, or by place where no declared name is the artifact's. Raises LoadFailed."""
    by_name = {spec.name: spec for spec in found}
    strange = [spec.name for spec in declared if spec.name not in by_name]
    if not strange:
        return tuple((spec, by_name[spec.name]) for spec in declared)
    if len(strange) == len(declared) == len(found):
        return tuple(zip(declared, found, strict=True))
    raise errors.LoadFailed(
        f"the declared {what} {strange[0]!r} does not exist in the model{options.nearest(strange[0], by_name)}"
    )


def check_names(declared: Specs, found: Specs, what: str) -> None:
    """Refuse a declared name that the artifact, which knows its names, does not have."""
    names = {spec.name for spec in found}
    for spec in declared:
        if spec.name not in names:
            raise errors.LoadFailed(
                f"the declared {what} {spec.name!r} does not exist in the model{options.nearest(spec.name, names)}"
            )


def check_all(declared: Specs, needed: Iterable[str], what: str) -> None:
    """Refuse a declaration that leaves out a tensor that the model needs."""
    names = {spec.name for spec in declared}
    for name in needed:
        if name not in names:
            raise errors.LoadFailed(
                f"the model needs the {what} {name!r}, which the declaration leaves out"
            )


def check_true(declared: model.TensorSpec, found: model.TensorSpec, what: str) -> None:
    """Refuse a declared datatype or shape that the model contradicts.

    An input may be declared narrower than what the model takes (a size where it takes any), an output wider than what it gives.
    """
    if declared.datatype != found.datatype:
        raise errors.LoadFailed(
            f"{what} {declared.name!r} is declared {declared.datatype}, but the model has {found.datatype}"
        )
    wide, narrow = (found, declared) if what == "input" else (declared, found)
    sizes = zip(wide.shape, narrow.shape, strict=False)
    if len(declared.shape) != len(found.shape) or any(any_ not in (-1, one) for any_, one in sizes):
        said, is_ = list(declared.shape), list(found.shape)
        raise errors.LoadFailed(
            f"{what} {declared.name!r} is declared with shape {said}, but the model has {is_}"
        )


def check_words(specs: Specs, what: str) -> None:
    """Refuse datatypes that the protocol has no word for, impossible shapes and repeated names."""
    for spec in specs:
        if spec.datatype not in datatypes.NUMPY_TYPES:
            near = options.nearest(spec.datatype, datatypes.NUMPY_TYPES)
            raise errors.LoadFailed(
                f"{what} {spec.name!r} has datatype {spec.datatype!r}, which does not exist{near}"
            )
        if any(size < -1 for size in spec.shape):
            raise errors.LoadFailed(
                f"{what} {spec.name!r} has shape {list(spec.shape)}: a dimension is a size, or -1 for any"
            )
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise errors.LoadFailed(f"two {what}s have the same name: {', '.join(sorted(names))}")


def agreed(declared: Specs, found: Specs, what: str) -> dict[model.TensorSpec, str]:
    """Declared tensors, verified, each with the artifact's own name for it; all as found where nothing is declared. Raises LoadFailed."""
    if not declared:
        return {spec: spec.name for spec in found}
    check_words(declared, what)
    pairs = pair(declared, found, what)
    for said, is_ in pairs:
        check_true(said, is_, what)
    return {said: is_.name for said, is_ in pairs}


def are_batches(specs: Iterable[model.TensorSpec]) -> bool:
    """Whether every tensor's first dimension may have any size."""
    return all(spec.shape[:1] == (-1,) for spec in specs)
