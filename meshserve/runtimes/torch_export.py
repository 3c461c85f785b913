"""Read programs of `torch.export.save`, so that their weights can stay in a mapped file."""

from __future__ import annotations

import functools
import io
import json
import math
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import mapped_weights, prerequisites, signatures, torch_model

LOADING = threading.Lock()
"""`torch.export` keeps state in globals: if two threads load exported programs, both fail."""

_INTEGERS = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_DATATYPES = {name: name.upper() for name in _INTEGERS} | {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
}

_PICKLED = ("custom_obj_", "opaque_obj_")  # The files of pickled objects begin so.


def warm_up(torch: Any) -> None:
    """Export, save, load and run the smallest program. The caller holds `LOADING`."""
    prerequisites.import_library("torch.export.pt2_archive", "PyTorch", "torch")
    smallest, content = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), io.BytesIO()
    torch.export.save(smallest, content)
    content.seek(0)
    torch.export.load(content).module()(torch.zeros(1))


def open_program(
    torch: Any,
    file: Path,
    mapping: mapped_weights.MappedFile | None,
    spec: model.ModelSpec,
    device: str,
) -> torch_model.TorchProgram:
    """Load an exported program. Raises LoadFailed, and what torch raises for a broken file."""
    if not spec.trust:
        _check_no_pickles(torch, file)
    with LOADING:
        program = _read(torch, file, mapping)
        if device != "cpu":
            program = torch.export.passes.move_to_device_pass(program, device)
        module = program.module()
    examples = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = program.graph_signature.user_inputs
    inputs = [examples.get(name) for name in names]
    outputs = [examples.get(name) for name in program.graph_signature.user_outputs]
    if not all(isinstance(value, torch.Tensor) for value in inputs + outputs):
        raise errors.LoadFailed(f"{file.name} takes or gives something that is not a tensor")
    # The form in which torch.export itself describes what a program returns.
    structure = torch.utils._pytree.tree_unflatten(outputs, program.call_spec.out_spec)  # noqa: SLF001
    own_outputs = torch_model.name_outputs(structure).items()
    opened = torch_model.TorchProgram(
        module,
        _flat_call(torch, module, program.call_spec.in_spec),
        tuple(_spec_of(name, value) for name, value in zip(names, inputs, strict=True)),
        spec.outputs or tuple(_spec_of(name, value) for name, value in own_outputs),
        _rows_max(program, inputs),
        is_stateless=not _changes_state(program),
        sizes_of=functools.partial(
            _allowed_sizes, dict(zip(names, inputs, strict=True)), program.range_constraints
        ),
    )
    return _with_declared_inputs(opened, spec)


def _read(torch: Any, file: Path, mapping: mapped_weights.MappedFile | None) -> Any:
    """Read as `torch.export.load` does, which copies weights, but leave them in the mapping."""
    # Private API of the pinned torch: the public reader always copies the weights.
    package = torch.export.pt2_archive._package  # noqa: SLF001
    reader = package.PT2ArchiveReader(str(file))
    if mapping is None or str(reader.archive_version()) != package.ARCHIVE_VERSION_VALUE:
        return torch.export.load(str(file))
    reader.archive_file = _MappedRecords(torch, reader.archive_file, mapping)
    return package._load_exported_programs(reader, reader.get_file_names(), None)["model"]  # noqa: SLF001


class _MappedRecords:
    """The reader of an archive's members, but with tensors in a mapping instead of copies."""

    def __init__(self, torch: Any, records: Any, mapping: mapped_weights.MappedFile) -> None:
        self._torch = torch
        self._records = records
        self._mapping = mapping

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def get_storage_from_record(self, name: str, count: int, dtype: Any) -> Any:
        """Return a tensor of shape [count] over all of the member."""
        storage = self._mapping.member(
            self._records.get_record_offset(name), self._records.get_record_size(name)
        )
        if storage is None:
            return self._records.get_storage_from_record(name, count, dtype)
        return self._torch.empty(0, dtype=dtype).set_(storage, 0, (count,), (1,))


def _flat_call(torch: Any, module: Any, in_spec: Any) -> Callable[..., Any]:
    """Return the module as a function of its tensors, however its own arguments nest them."""
    tree = torch.utils._pytree  # noqa: SLF001 torch.export describes arguments with it
    arguments, keywords = tree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    if not keywords and all(isinstance(argument, int) for argument in arguments):
        return module  # type: ignore[no-any-return]

    def call(*tensors: Any) -> Any:
        nested, named = tree.tree_unflatten(list(tensors), in_spec)
        return module(*nested, **named)

    return call


def _spec_of(name: str, example: Any) -> model.TensorSpec:
    """Return the spec of an example tensor, in whose shape free sizes are symbols."""
    datatype = _DATATYPES.get(str(example.dtype).removeprefix("torch."))
    if datatype is None:
        raise errors.LoadFailed(
            f"tensor {name!r} is {example.dtype}, which the protocol has no datatype for"
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in example.shape)
    return model.TensorSpec(name, datatype, shape)


def _rows_max(program: Any, inputs: Sequence[Any]) -> int | None:
    """Return the most rows that the program was exported for, or None for any number."""
    bounds = [
        program.range_constraints.get(value.shape[0].node.expr)
        for value in inputs
        if value.dim() and not isinstance(value.shape[0], int)
    ]
    rows_max = min((float(bound.upper) for bound in bounds if bound is not None), default=math.inf)
    return int(rows_max) if rows_max < math.inf else None


def _allowed_sizes(
    examples: Mapping[str, Any], bounds: Mapping[Any, Any], rows: int, free_size: int
) -> dict[str, tuple[int, ...]]:
    """Return the inputs' shapes for about `rows` rows and about `free_size` elsewhere.

    The sizes of `examples` are numbers, symbols, or expressions of symbols, such as 5 times the
    rows; `bounds` has the least and the largest value of some symbols.
    """
    first = {
        symbol
        for value in examples.values()
        if value.dim() and not isinstance(value.shape[0], int)
        for symbol in value.shape[0].node.expr.free_symbols
    }

    def size(dimension: Any) -> int:
        if isinstance(dimension, int):
            return dimension
        expression = dimension.node.expr
        numbers = {
            symbol: _bounded(rows if symbol in first else free_size, bounds.get(symbol))
            for symbol in expression.free_symbols
        }
        return int(expression.subs(numbers))

    return {name: tuple(map(size, value.shape)) for name, value in examples.items()}


_LEAST_DYNAMIC = 2
"""The least value of every free size, because torch looks for what 0 and 1 change on its own.

Most programs take these too.
"""


def _bounded(number: int, bound: Any) -> int:
    if bound is None:
        return number
    lower = float(bound.lower) if bound.lower > _LEAST_DYNAMIC else 1.0
    return int(max(lower, min(number, float(bound.upper))))  # `upper` may be infinite.


def _with_declared_inputs(
    program: torch_model.TorchProgram, spec: model.ModelSpec
) -> torch_model.TorchProgram:
    """Return the program with the declared inputs instead of its own, in its own order."""
    if not spec.inputs:
        return program
    if len(spec.inputs) != len(program.inputs):
        signatures.check_complete(spec.inputs, [own.name for own in program.inputs], "input")
    agreed = signatures.agree(spec.inputs, program.inputs, "input")
    declared = {own: input_ for input_, own in agreed.items()}
    inputs = tuple(declared[own.name] for own in program.inputs)
    names = {own.name: input_.name for own, input_ in zip(program.inputs, inputs, strict=True)}
    sizes_of = program.sizes_of
    assert sizes_of is not None, "an exported program knows its sizes"
    return replace(
        program,
        inputs=inputs,
        sizes_of=lambda rows, size: {
            names[own]: shape for own, shape in sizes_of(rows, size).items()
        },
    )


def _changes_state(program: Any) -> bool:
    """Return whether an operator may write to a parameter, a buffer or a constant."""
    signature = program.graph_signature
    if signature.buffers_to_mutate:
        return True
    state = {
        *signature.inputs_to_parameters,
        *signature.inputs_to_buffers,
        *signature.inputs_to_lifted_tensor_constants,
    }
    return any(
        argument.alias_info is not None
        and argument.alias_info.is_write
        and _may_be_state(value, state)
        for node in program.graph.nodes
        if (schema := _schema(node)) is not None
        for argument, value in _named(schema.arguments, node)
    )


def _schema(node: Any) -> Any:
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _named(arguments: Sequence[Any], node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each argument of an operator with what the node gives for it."""
    yield from zip(arguments, node.args, strict=False)
    for argument in arguments:
        if argument.name in node.kwargs:
            yield argument, node.kwargs[argument.name]


def _may_be_state(value: Any, state: AbstractSet[str]) -> bool:
    """Return whether a node's result may be one of the named tensors, or a view of one."""
    if getattr(value, "name", None) in state:
        return True
    if getattr(value, "op", "placeholder") == "placeholder":
        return False
    schema = _schema(value)
    if schema is not None and all(result.alias_info is None for result in schema.returns):
        return False
    return any(_may_be_state(source, state) for source in value.all_input_nodes)


def _check_no_pickles(torch: Any, file: Path) -> None:
    """Raise LoadFailed if there are pickled objects beside the tensors: unpickling runs code."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        configs = [
            json.loads(archive.read(name))
            for name in names
            if name.endswith("_config.json") and "/data/" in name
        ]
        samples = [archive.read(name) for name in names if "/data/sample_inputs/" in name]
    members = [member for config in configs for member in config.get("config", {}).values()]
    pickled = [
        str(member["path_name"])
        for member in members
        if member.get("use_pickle") or str(member["path_name"]).startswith(_PICKLED)
    ]
    pickled += [
        name
        for name in names
        if "/data/aotinductor/" in name
        or (name.endswith((".pt", ".so")) and "/sample_inputs/" not in name)
    ]
    pickled += ["sample_inputs" for sample in samples if sample and not _is_plain(torch, sample)]
    # Zip readers disagree about which of two members with the same name they read.
    if pickled or len(set(names)) < len(names):
        raise errors.LoadFailed(
            f"{file.name} holds code ({', '.join(pickled) or 'hidden members'}): "
            "set trust: true if you trust whoever made it"
        )


def _is_plain(torch: Any, sample: bytes) -> bool:
    try:
        torch.load(io.BytesIO(sample), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        return False
    return True
