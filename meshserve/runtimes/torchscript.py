"""TorchScript archives.

A `.pt` says the names of what it takes, but no datatypes and shapes. Those are declared in the
spec, or in a file `signature.json` in the archive: {"inputs": [{"name", "datatype", "shape"}],
"outputs": […]}, saved by `torch.jit.save(m, path, _extra_files={"signature.json": …})`. Without a
declaration the program itself is the judge of what comes.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import files, options, signatures, torch_model, torchscript_arguments

logger = logging.getLogger(__name__)

_VIEW = re.compile(r"\w\([a-z*]")
"""A return value of a schema that shares its memory with an argument."""

_TENSORS = ("Tensor", "Optional[Tensor]")

_UNKNOWN_SOURCES = frozenset({"prim::GetAttr", "prim::Param", "prim::If", "prim::Loop"})
"""Kinds of nodes whose results are tensors of the module, or any that reach a branch or loop."""

_CHANGEABLE = frozenset({"ListType", "DictType", "AnyType"})


def open_program(
    torch: Any, file: Path, spec: model.ModelSpec, device: str
) -> torch_model.TorchProgram:
    """Load a scripted module. Raises LoadFailed, and what torch raises for a broken file.

    Option: `eval`, false by default: put a module into evaluation mode that was saved in training.
    """
    reader = options.Options(spec)
    evaluates = reader.flag("eval", default=False)
    reader.check_known()
    module = torch.jit.load(str(file), map_location=device)
    if evaluates:
        module.eval()
    is_training = _is_training(module)
    if is_training:
        logger.warning(
            "%s: %s was saved in training mode, and answers so: set options: {eval: true}, "
            "or save it after eval()",
            spec.id,
            file.name,
        )
    inputs, outputs = _declared(file, spec)
    signatures.check_specs(inputs, "input")
    arguments = None
    if not inputs:
        signatures.check_no_sample(spec)
        arguments = torchscript_arguments.OpenArguments(module.forward.schema.arguments[1:])
    return torch_model.TorchProgram(
        module,
        _call(module, inputs) if arguments is None else module,
        inputs if arguments is None else arguments.specs(),
        outputs,
        is_pure=_is_pure(module),
        is_stateless=not _changes_module(torch, module, is_training=is_training),
        is_training=is_training,
        arguments=arguments,
    )


def _is_training(module: Any) -> bool:
    """Return whether a part of the module is in training; frozen ones have no mode any more."""
    return any(getattr(part, "training", False) for part in module.modules())


def _call(module: Any, inputs: Sequence[model.TensorSpec]) -> Callable[..., Any]:
    """Return the module as a function of the inputs in their order.

    Raises LoadFailed if its `forward` takes others.
    """
    arguments = module.forward.schema.arguments[1:]  # The first is the module itself.
    names = [argument.name for argument in arguments if str(argument.type) in _TENSORS]
    needed = [argument for argument in arguments if not argument.has_default_value()]
    for argument in needed:
        if argument.name not in names:
            raise errors.LoadFailed(
                f"forward needs {argument.name!r} of type {argument.type}, which is not a tensor"
            )
    if not len(needed) <= len(inputs) <= len(names):
        raise errors.LoadFailed(
            f"forward takes {', '.join(names) or 'nothing'}, but {len(inputs)} inputs are declared"
        )
    keys = _keys(inputs, [argument.name for argument in arguments], names)
    if keys is None:
        return module  # type: ignore[no-any-return]
    signatures.check_complete(
        [replace(spec, name=key) for spec, key in zip(inputs, keys, strict=True)],
        [argument.name for argument in needed],
        "input",
    )

    def call(*tensors: Any) -> Any:
        return module(**dict(zip(keys, tensors, strict=True)))

    return call


def _keys(
    inputs: Sequence[model.TensorSpec], arguments: Sequence[str], tensors: Sequence[str]
) -> list[str] | None:
    """Return the argument of `forward` that each input means, or None if they are in its order.

    As in Triton an input has an argument's name, or one like `INPUT__0` with its position. Raises
    LoadFailed for names of which only some are arguments.
    """
    keys = [spec.name for spec in inputs]
    known = [key for key in keys if key in tensors]
    if len(known) == len(keys):
        return keys
    if known:
        signatures.check_names(inputs, [replace(inputs[0], name=name) for name in tensors], "input")
    positions = signatures.named_positions(inputs, len(arguments))
    if positions is None:
        return None
    keys = [arguments[position] for position in positions]
    for spec, key in zip(inputs, keys, strict=True):
        if key not in tensors:
            raise errors.LoadFailed(f"input {spec.name!r} means {key!r}, which is not a tensor")
    return keys


def _is_pure(module: Any) -> bool:
    """Return whether a run can change nothing of the module but its tensors.

    That is so if it sets no attribute, and has none that can grow.
    """
    graph = module.inlined_graph
    kinds = {
        node.output().type().kind() for node in graph.findAllNodes("prim::GetAttr", recurse=True)
    }
    return not graph.findAllNodes("prim::SetAttr", recurse=True) and not kinds & _CHANGEABLE


def _changes_module(torch: Any, module: Any, *, is_training: bool) -> bool:
    """Return whether a run may set an attribute of the module, or write to a tensor or list of it.

    Operators mark what they write to by `!` in their schema, as in `Tensor(a!) self`.
    """
    graph = module.inlined_graph if is_training else _evaluation_graph(torch, module)
    if graph.findAllNodes("prim::SetAttr", recurse=True):
        return True
    given = {value.debugName() for value in graph.inputs()}
    return any(
        argument.alias_info is not None
        and argument.alias_info.is_write
        and _may_be_state(value, given)
        for node in _nodes(graph)
        if "!" in node.schema()
        for argument, value in zip(
            # A private function too: nodes have their schema as text alone.
            torch._C.parse_schema(node.schema()).arguments,  # noqa: SLF001
            node.inputs(),
            strict=False,
        )
    )


def _evaluation_graph(torch: Any, module: Any) -> Any:
    """Return the graph without the branches that only training takes: a batch norm counts there."""
    # A copy, so the changes below leave the module as it is.
    graph = module.inlined_graph
    for node in graph.findAllNodes("prim::GetAttr", recurse=True):
        if node.s("name") == "training":
            constant = graph.insertConstant(False)  # noqa: FBT003 a value
            # `insertConstant` appends it behind its uses.
            constant.node().moveBefore(next(iter(graph.nodes())))
            node.output().replaceAllUsesWith(constant)
    # A private function of the pinned torch; the public `freeze` copies all weights.
    torch._C._jit_pass_constant_propagation(graph)  # noqa: SLF001
    return graph


def _nodes(block: Any) -> Iterator[Any]:
    """Yield every node of a graph, those of its branches and loops too."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _may_be_state(value: Any, given: AbstractSet[str]) -> bool:
    """Return whether a value may be a tensor of the module or a view of one."""
    if value.debugName() in given:
        return False
    node = value.node()
    if node.kind() in _UNKNOWN_SOURCES:
        return True
    _, has_schema, returned = node.schema().rpartition("->")
    # An operator that returns a view names what it is a view of, as in `Tensor(a)`.
    if has_schema and not _VIEW.search(returned):
        return False
    return any(_may_be_state(source, given) for source in node.inputs())


def _declared(
    file: Path, spec: model.ModelSpec
) -> tuple[tuple[model.TensorSpec, ...], tuple[model.TensorSpec, ...]]:
    """Return the inputs and outputs that the spec, or else the archive's file, declares."""
    in_archive = _signature_file(file)
    inputs = spec.inputs or in_archive.get("inputs", ())
    return inputs, spec.outputs or in_archive.get("outputs", ())


def _signature_file(file: Path) -> dict[str, tuple[model.TensorSpec, ...]]:
    names = files.zip_members(file)
    member = next((name for name in names if name.endswith("/extra/signature.json")), None)
    if member is None:
        return {}
    try:
        with zipfile.ZipFile(file) as archive:
            # Of anything but an object this raises TypeError.
            document = {**json.loads(archive.read(member))}
        return {
            key: tuple(map(_tensor_spec, document[key]))
            for key in ("inputs", "outputs")
            if key in document
        }
    except (ValueError, KeyError, TypeError) as error:
        raise errors.LoadFailed(
            f"{file.name}: signature.json must be "
            f"{{inputs: [{{name, datatype, shape}}], outputs: […]}}: {error}"
        ) from error


def _tensor_spec(entry: Mapping[str, Any]) -> model.TensorSpec:
    return model.TensorSpec(
        str(entry["name"]), str(entry["datatype"]), tuple(int(size) for size in entry["shape"])
    )
