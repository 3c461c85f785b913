"""Walks over the operators of an ONNX graph, and finds those that may mix rows.

A copy of the model with every tensor as an output is run with 3 and with 5 rows; from the shapes
follow the batch axes, and each operator must obey its rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meshserve.runtimes import datatypes, onnx_graph, onnx_operators, onnx_sizes, row_proof
from meshserve.runtimes import row_rules as rules

SIZE_MAX = 64 << 20
"""Bigger files are not walked: their second session would take as much memory as the first."""

SMALL_WEIGHT = 64
"""Weights of at most so many elements may be axes or sizes, so their values are looked at."""

_DEFAULT_DOMAINS = ("", "ai.onnx")


def find_row_mixing(library: Any, file: Path, probe: onnx_operators.Arrays) -> str | None:
    """Return None if the graph's operators keep rows apart, else which one may not.

    `probe` are inputs of one row that the model takes. The second session takes as much memory as
    the model itself until this returns.
    """
    if file.suffix == ".ort" or file.stat().st_size > SIZE_MAX:
        return "its graph is not read: it is an .ort file, or bigger than 64 MiB"
    content = file.read_bytes()
    try:
        graph = onnx_graph.read(content)
        names = _tensor_names(graph)
        session = _session(library, onnx_graph.with_outputs(content, names), file)
        _check_symbols(session, graph)
        # The one row that the model is known to take, repeated: rows need not differ here.
        feeds = tuple(row_proof.several_rows(probe, rows) for rows in rules.ROWS)
        first, second = (
            {
                name: value
                for name, value in zip(names, session.run(names, feed), strict=True)
                # ZipMap gives a list of maps, and has a rule of its own.
                if isinstance(value, np.ndarray)
            }
            for feed in map(_with_texts, feeds)
        )
        walk(graph, (feeds[0], feeds[1]), (first, second))
    except (rules.RowsMix, onnx_graph.Unreadable) as reason:
        return str(reason)
    return None


def _tensor_names(graph: onnx_graph.Graph) -> list[str]:
    """Return all tensors that operators compute, and small weights, which may be axes or sizes."""
    computed = [name for node in graph.nodes for name in node.outputs if name]
    return computed + [name for name, count in graph.weights.items() if count <= SMALL_WEIGHT]


def _session(library: Any, content: bytes, file: Path) -> Any:
    chosen = library.SessionOptions()
    # Nothing may be fused: the operators of the file are those that are judged.
    chosen.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL
    chosen.intra_op_num_threads = 1
    chosen.enable_cpu_mem_arena = False
    chosen.log_severity_level = 4
    # Weights in files beside the model are not found from its bytes alone.
    chosen.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(file.parent)
    )
    return library.InferenceSession(content, chosen, providers=["CPUExecutionProvider"])


def _check_symbols(session: Any, graph: onnx_graph.Graph) -> None:
    """Raise RowsMix if first dimensions have names, but not one and the same."""
    nodes = [*session.get_inputs(), *session.get_outputs()]
    wanted = {*(node.name for node in session.get_inputs()), *graph.outputs}
    symbols = {
        node.shape[0]
        for node in nodes
        if node.name in wanted and node.shape and isinstance(node.shape[0], str)
    }
    # ONNX Runtime calls dimensions that have no name `unk__…`.
    named = {symbol for symbol in symbols if symbol and not symbol.startswith("unk__")}
    if len(named) > 1:
        raise rules.RowsMix(f"first dimensions differ by name: {', '.join(sorted(named))}")


def _with_texts(feed: onnx_operators.Arrays) -> dict[str, np.ndarray]:
    return {
        name: datatypes.to_texts(array) if array.dtype.hasobject else array
        for name, array in feed.items()
    }


def walk(
    graph: onnx_graph.Graph,
    feeds: tuple[onnx_operators.Arrays, onnx_operators.Arrays],
    values: tuple[onnx_operators.Arrays, onnx_operators.Arrays],
) -> None:
    """Raise RowsMix unless the graph's operators keep rows apart.

    `feeds` are inputs with 3 and with 5 rows, `values` all tensors of these runs.
    """
    known = {name: rules.rows_of((feeds[0][name].shape, feeds[1][name].shape)) for name in feeds[0]}
    tensors = onnx_operators.WalkedTensors(graph.opset, known, values)
    for node in graph.nodes:
        try:
            _add(tensors, node)
        except rules.RowsMix as mix:
            raise rules.RowsMix(f"{node.kind}: {mix}") from None
    for name in graph.outputs:
        rules.check_output(name, known.get(name) or rules.constant())


def _add(tensors: onnx_operators.WalkedTensors, node: onnx_graph.Node) -> None:
    """Judge one operator. Raises RowsMix."""
    domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
    if domain not in ("", onnx_operators.ML_DOMAIN) or node.kind in _NEVER:
        raise rules.RowsMix("it is not known to keep rows apart")
    if node.kind == "Dropout" and len(node.inputs) > _TRAINING and node.inputs[_TRAINING]:
        # Checked for constants too: what is drawn anew in each run is no constant.
        raise rules.RowsMix("it behaves as in training")
    if node.kind in ("Shape", "Size"):
        _add_sizes(tensors, node)
        return
    names = [name for name in node.inputs if name]
    if not any(name in tensors.known for name in names):
        _add_without_rows(tensors, node, names)
        return
    if node.kind in _TAKING_SIZES and any(name in tensors.known for name in names[1:]):
        raise rules.RowsMix("its sizes are computed from the rows")
    if node.kind == "ZipMap" and domain == onnx_operators.ML_DOMAIN:
        rules.at_axis(tensors.known[names[0]], 0)
        tensors.known[node.outputs[0]] = rules.rows_of(((rules.ROWS[0],), (rules.ROWS[1],)))
        return
    outputs = {name: rules.rows_of(tensors.shapes(name)) for name in node.outputs if name}
    _check_sizes(tensors, node, outputs[node.outputs[0]])
    onnx_operators.check_rule(tensors, node, domain, outputs)
    tensors.known.update(outputs)


def _add_sizes(tensors: onnx_operators.WalkedTensors, node: onnx_graph.Node) -> None:
    for name in node.outputs:
        first, second = tensors.values[0][name], tensors.values[1][name]
        if first.shape != second.shape:
            raise rules.RowsMix("the number of dimensions depends on the number of rows")
        _keep_mask(tensors, name, np.asarray(first != second))


def _keep_mask(tensors: onnx_operators.WalkedTensors, name: str, mask: np.ndarray) -> None:
    if mask.any():
        tensors.sizes[name] = mask


def _check_sizes(
    tensors: onnx_operators.WalkedTensors, node: onnx_graph.Node, output: rules.Operand
) -> None:
    """Check that sizes which follow the rows set the batch axis alone. Raises RowsMix."""
    for place, name in enumerate(node.inputs):
        if name not in tensors.sizes:
            continue
        if (node.kind, place) not in _PLACES_OF_SIZES or "axes" in node.attributes:
            raise rules.RowsMix("a value depends on the number of rows")
        onnx_sizes.check_places(tensors.sizes[name], output)


def _add_without_rows(
    tensors: onnx_operators.WalkedTensors, node: onnx_graph.Node, names: Sequence[str]
) -> None:
    """Add the outputs of an operator that takes constants, and sizes perhaps."""
    if not any(name in tensors.sizes for name in names):
        return
    name = node.outputs[0]
    first, second = tensors.shapes(name)
    if node.kind in ("ConstantOfShape", "Expand", "Tile") and first != second:
        output = rules.rows_of((first, second))
        _check_sizes(tensors, node, output)
        tensors.known[name] = output
        return
    if first != second:
        raise rules.RowsMix("the number of sizes depends on the number of rows")
    _keep_mask(tensors, name, onnx_sizes.follow(node, tensors.sizes, tensors.values[0], name))


_TRAINING = 2
"""The input of Dropout that says whether it behaves as in training."""

_NEVER = rules.names_in(
    """
    If Loop Scan SequenceMap RandomNormal RandomUniform RandomNormalLike RandomUniformLike
    Bernoulli Multinomial
    """
)

_PLACES_OF_SIZES = frozenset(
    {("Reshape", 1), ("Expand", 1), ("Tile", 1), ("Resize", 3), ("ConstantOfShape", 0)}
)
"""Inputs that are sizes of the output, by operator and place."""

_TAKING_SIZES = rules.names_in("Reshape Expand Tile Slice Pad Resize Upsample Unsqueeze Squeeze")
