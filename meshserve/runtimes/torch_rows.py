"""Walks over the operators that a torch program calls, and finds those that may mix rows.

Each is called with 3 and with 5 rows; from the shapes follow the axes of rows, and the operator
must obey its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshserve.runtimes import row_rules as rules
from meshserve.runtimes import torch_calls, torch_operators


def walk(
    torch: Any,
    call: Callable[..., Any],
    feeds: tuple[Sequence[Any], Sequence[Any]],
    name_outputs: Callable[[Any], Mapping[str, Any]],
) -> None:
    """Raise RowsMix unless the operators that `call` runs keep rows apart.

    `feeds` are its tensors with 3 and with 5 rows.
    """
    runs, inputs, outputs, constants = [], [], [], []
    for tensors in feeds:
        recording = torch_calls.Recording(torch)
        inputs.append([recording.tensor(tensor) for tensor in tensors])
        with torch.inference_mode(), torch_calls.recording_mode(torch, recording):
            named = name_outputs(call(*tensors))
        outputs.append({name: recording.describe(value) for name, value in named.items()})
        runs.append(recording.calls)
        constants.append(recording.constants)
    if [one.operator for one in runs[0]] != [one.operator for one in runs[1]]:
        raise rules.RowsMix("the operators depend on the number of rows")
    sizes = _differing(torch, constants[0], constants[1])
    known = {
        one.number: rules.rows_of((one.shape, other.shape))
        for one, other in zip(*inputs, strict=True)
    }
    for calls in zip(*runs, strict=True):
        _judge(known, sizes, calls)
    for name, value in outputs[0].items():
        rules.check_output(name, known.get(value.number) or rules.constant(value.shape))


def _differing(torch: Any, first: Mapping[int, Any], second: Mapping[int, Any]) -> set[int]:
    """Return the tensors that no operator made and that differ between the runs: sizes."""
    if first.keys() != second.keys():
        raise rules.RowsMix("the operators depend on the number of rows")
    return {
        number
        for number, tensor in first.items()
        # A weight is the same object in both runs, which saves comparing its values.
        if tensor is not second[number]
        and not (tensor.shape == second[number].shape and torch.equal(tensor, second[number]))
    }


def check_control_flow(torch: Any, module: Any) -> None:
    """Raise RowsMix if TorchScript may take another way for another number of rows.

    The walk sees one way only. A branch on ranks, on constants or on missing tensors takes the
    same one for any number of rows.
    """
    if not isinstance(module, torch.jit.ScriptModule):
        return
    # Frozen, so that branches on the module's own attributes, such as `training`, are gone.
    graph = torch.jit.freeze(module).graph
    for kind in ("prim::Loop", "aten::len"):
        if graph.findAllNodes(kind, recurse=True):
            raise rules.RowsMix(f"{kind.partition('::')[2]}: it may depend on the number of rows")
    for node in graph.findAllNodes("prim::If", recurse=True):
        if not _is_fixed(next(node.inputs())):
            raise rules.RowsMix("if: its condition may depend on the rows or their number")


def _is_fixed(value: Any) -> bool:
    """Return whether a condition can't depend on the rows nor on their number."""
    node = value.node()
    if node.kind() in _FIXED_SOURCES:
        return True
    return node.kind() in _FIXED_OPERATORS and all(map(_is_fixed, node.inputs()))


_FIXED_SOURCES = frozenset({"prim::Constant", "prim::GetAttr", "aten::dim", "prim::dtype"})

_FIXED_OPERATORS = rules.names_in(
    """
    aten::__is__ aten::__isnot__ aten::__not__ aten::__and__ aten::__or__ aten::eq aten::ne
    aten::lt aten::le aten::gt aten::ge aten::__contains__ aten::add aten::sub
    prim::ListConstruct aten::Bool
    """
)


def _judge(
    known: torch_operators.Operands,
    sizes: set[int],
    calls: tuple[torch_calls.Call, torch_calls.Call],
) -> None:
    """Check one operator, and add what it returns to `known`. Raises RowsMix."""
    first, second = calls
    library, name = str(first.operator).split(".")[:2]
    try:
        _check_library(library)
        _check(torch_operators.Step(known, sizes, first, second, name))
    except rules.RowsMix as mix:
        raise rules.RowsMix(f"{name}: {mix}") from None


def _check_library(library: str) -> None:
    # Operators of other libraries may have the names of torch's, and do something else.
    if library != "aten":
        raise rules.RowsMix("it is not known to keep rows apart")


def _check(step: torch_operators.Step) -> None:
    """Check the operator, and add what it returns to the operands that are known."""
    inputs = step.inputs()
    results = list(zip(step.first.results, step.second.results, strict=True))
    has_rows = any(operand.axis is not None for operand in inputs)
    if any(tensor.number in step.sizes for tensor in step.all_tensors(step.first)):
        _add_sizes(step, has_rows=has_rows)
        return
    _check_arguments(step)
    _check_written(step)
    # Numbers are not followed, so `item` of a row ends the proof.
    if not results and has_rows and step.name not in _QUERIES:
        raise rules.RowsMix("a number is taken out of the rows")
    if not has_rows:
        _add_constants(step, results)
        return
    outputs = []
    for one, other in results:
        outputs.append(rules.rows_of((one.shape, other.shape)))
    if results:
        torch_operators.check_rule(step, outputs)
    for (one, _), output in zip(results, outputs, strict=True):
        step.known[one.number] = output


def _add_sizes(step: torch_operators.Step, *, has_rows: bool) -> None:
    """Add what is computed from sizes alone, as traces do it for reshapes."""
    if has_rows or step.name not in _SIZE_OPERATORS:
        raise rules.RowsMix("a value depends on the number of rows")
    step.sizes.update(tensor.number for tensor in step.first.results)


def _check_arguments(step: torch_operators.Step) -> None:
    """Check that both runs gave the operator the same tensors and numbers."""
    if [tensor.number for tensor in step.all_tensors(step.first)] != [
        tensor.number for tensor in step.all_tensors(step.second)
    ]:
        raise rules.RowsMix("its arguments depend on the number of rows")
    if not step.is_whole_slice() and not _has_equal_values(step):
        raise rules.RowsMix("a number in it depends on the number of rows")


def _check_written(step: torch_operators.Step) -> None:
    """Check that the operator changes rows alone: others, such as counters, outlive the run."""
    if any(value.axis is None for name in step.written for value in step.operands(name)):
        raise rules.RowsMix("it changes a tensor that may outlive the run")


def _add_constants(
    step: torch_operators.Step, results: list[tuple[torch_calls.SeenTensor, torch_calls.SeenTensor]]
) -> None:
    """Add the results of an operator that took no rows."""
    if torch_calls.is_random(step.first.operator):
        raise rules.RowsMix("it is drawn anew in each run")
    for one, other in results:
        if one.shape != other.shape:
            if step.name not in _FACTORIES | {"expand", "repeat"}:
                raise rules.RowsMix("a constant depends on the number of rows")
            step.known[one.number] = rules.rows_of((one.shape, other.shape))


def _has_equal_values(step: torch_operators.Step) -> bool:
    def plain(value: Any) -> Any:
        if isinstance(value, torch_calls.SeenTensor):
            return None
        return [plain(element) for element in value] if isinstance(value, list) else value

    takes_sizes = step.name in _SIZED
    return all(
        plain(value) == plain(step.second.arguments[name])
        for name, value in step.first.arguments.items()
        if not (takes_sizes and name in _SIZES)
    )


_SIZE_OPERATORS = frozenset(
    {"add", "sub", "mul", "div", "floor_divide", "item", "_local_scalar_dense", "equal", "to"}
)

_QUERIES = frozenset(
    {"size", "sym_size", "dim", "stride", "numel", "is_floating_point", "storage_offset"}
)

_FACTORIES = frozenset(("zeros", "ones", "full", "new_zeros", "new_ones", "new_full"))
"""Operators whose elements are all equal: they have rows where their shape has them."""

_SIZED = torch_operators.REGROUPING | _FACTORIES | {"expand", "repeat"}
_SIZES = ("size", "shape", "sizes", "repeats")
"""Arguments of these operators that may follow the number of rows."""
