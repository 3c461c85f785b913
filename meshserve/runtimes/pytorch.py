"""PyTorch programs: TorchScript archives (`.pt`) and exported programs (`.pt2`).

A `.pt` does not say what it takes. It is declared in the spec, or in a file `signature.json` inside the archive
(`torch.jit.save(m, path, _extra_files={"signature.json": …})`): {"inputs": [{"name", "datatype", "shape"}], "outputs": […]}.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import pickle
import threading
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    devices,
    files,
    mapped_weights,
    optional_import,
    options,
    probing,
    signatures,
    torch_model,
)

PLATFORM = "pytorch_libtorch"

_WORDS = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16",
}  # fmt: skip

_HOW_TO_DECLARE = (
    "a TorchScript file does not say what it takes: declare inputs: [{name, datatype, shape}] with the model, or save it with "
    '_extra_files={"signature.json": \'{"inputs": [{"name": …, "datatype": …, "shape": […]}]}\'}'
)

_EXPORTING = threading.Lock()
"""`torch.export` keeps its state in globals: of two threads that load exported programs at once, both fail."""

_CHANGEABLE = frozenset({"ListType", "DictType", "AnyType"})

_PICKLED = ("custom_obj_", "opaque_obj_")


def _looks_like_torch(file: Path) -> bool:
    return any(
        name.endswith(("/archive_format", "/constants.pkl", "/data.pkl"))
        for name in files.members(file)
    )


LAYOUT = files.Layout(
    ("model.pt2", "model.pt", "model.pth"), (".pt2", ".pt", ".pth"), _looks_like_torch
)


@dataclass(frozen=True, slots=True)
class _Archive:
    """A file, and its mapping if there is one."""

    file: Path
    mapping: mapped_weights.Mapped | None


class TorchRuntime(model_runtime.Runtime):
    """Loads TorchScript and `torch.export` archives. Both are programs: load only what you would run."""

    name = "torch"
    can_offload = True

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Whether there is such an archive, by name or content."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import torch, one thread for each prediction. Raises MissingExtra, or LoadFailed where the device is not there."""
        devices.require_known(device)
        with _EXPORTING:
            _warmed_up()
        if device == "cuda" and not _library().cuda.is_available():
            raise errors.LoadFailed(
                "torch is installed without CUDA: pip install a CUDA build of torch"
            )

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Weights are as big as in the file; the program around them takes the rest."""
        bytes_max = artifact.size_bytes * 5 // 4 + (4 << 20)
        return model.Footprint(bytes_max, bytes_max if device == "cuda" else 0)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> torch_model.TorchModel:
        """The program in the archive, on the device. Raises LoadFailed."""
        self.prepare(device)
        file = files.require(spec, artifact, LAYOUT)
        options.Options(spec).check_known()
        _quieten()
        open_ = _opener(file)
        try:
            mapping = mapped_weights.opened(_library(), artifact, file) if device == "cpu" else None
            program = open_(_library(), _Archive(file, mapping), spec, device)
            if mapping is not None:
                program = replace(program, weights=mapping.weights(program.module, artifact))
        except errors.MeshError:
            raise
        except (
            Exception
        ) as error:  # a corrupt archive surfaces as whatever its bytes happen to mean
            raise errors.LoadFailed(
                f"torch can't load {file.name}: {torch_model.reason(error)}"
            ) from error
        return _verified(_library(), program, spec, device)


def _library() -> Any:
    return optional_import.require("torch", "PyTorch", "torch")


@functools.cache
def _warmed_up() -> None:
    """Make torch allocate what all models share, by loading the smallest of each kind."""
    torch = _library()
    torch.set_num_threads(1)
    optional_import.require("torch.export.pt2_archive", "PyTorch", "torch")
    smallest, content = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),)), io.BytesIO()
    torch.export.save(smallest, content)
    content.seek(0)
    torch.export.load(content).module()(torch.zeros(1))
    torch.jit.CompilationUnit("def smallest(x):\n    return x + 1\n").smallest(torch.zeros(1))


def _quieten() -> None:
    """TorchScript is deprecated but in use; and what `torch.export.load` logs of a broken file, it also raises."""
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)


def _opener(
    file: Path,
) -> Callable[[Any, _Archive, model.ModelSpec, str], torch_model.TorchProgram]:
    """How to open the archive, by what is in it. Raises LoadFailed for anything but a TorchScript or exported program."""
    names = files.members(file)
    if not names:
        raise errors.LoadFailed(
            f"{file.name} is not a whole archive as torch.export.save or torch.jit.save write it"
        )
    if any(name.endswith("/archive_format") for name in names):
        return _exported
    if any(name.endswith("/constants.pkl") for name in names):
        return _scripted
    if "serialized_exported_program.json" in names:
        raise errors.LoadFailed(
            f"{file.name} was exported by an older torch; save it again with torch.export.save"
        )
    raise errors.LoadFailed(
        f"{file.name} holds weights or a pickled module, not a program; save it with torch.export.save or torch.jit.save"
    )


def _scripted(
    torch: Any, archive: _Archive, spec: model.ModelSpec, device: str
) -> torch_model.TorchProgram:
    module = torch.jit.load(str(archive.file), map_location=device).eval()
    inputs, outputs = _declared(archive.file, spec)
    signatures.check_words(inputs, "input")
    arguments = module.forward.schema.arguments[1:]
    others = [
        argument
        for argument in arguments
        if str(argument.type) != "Tensor" and not argument.has_default_value()
    ]
    if others:
        raise errors.LoadFailed(
            f"forward needs {others[0].name!r} of type {others[0].type}, which is not a tensor"
        )
    names = [argument.name for argument in arguments if str(argument.type) == "Tensor"]
    needed = [argument.name for argument in arguments if not argument.has_default_value()]
    if not len(needed) <= len(inputs) <= len(names):
        raise errors.LoadFailed(
            f"forward takes {', '.join(names) or 'nothing'}, but {len(inputs)} inputs are declared"
        )
    call = module
    if {spec.name for spec in inputs} <= set(names):
        keys = [spec.name for spec in inputs]
        call = lambda *tensors: module(**dict(zip(keys, tensors, strict=True)))  # noqa: E731 one of two ways to call
    return torch_model.TorchProgram(module, call, inputs, outputs, is_pure=_is_pure(module))


def _is_pure(module: Any) -> bool:
    """Whether a scripted module has nothing but tensors that a run could change: it sets no attribute, and has none that can grow."""
    graph = module.inlined_graph
    kinds = {
        node.output().type().kind() for node in graph.findAllNodes("prim::GetAttr", recurse=True)
    }
    return not graph.findAllNodes("prim::SetAttr", recurse=True) and not kinds & _CHANGEABLE


def _declared(
    file: Path, spec: model.ModelSpec
) -> tuple[tuple[model.TensorSpec, ...], tuple[model.TensorSpec, ...]]:
    """Inputs and outputs by the spec, else by the archive's `signature.json`. Raises LoadFailed where neither says."""
    said = _signature_file(file)
    inputs = spec.inputs or said.get("inputs", ())
    if not inputs:
        raise errors.LoadFailed(f"{file.name}: {_HOW_TO_DECLARE}")
    return inputs, spec.outputs or said.get("outputs", ())


def _signature_file(file: Path) -> dict[str, tuple[model.TensorSpec, ...]]:
    member = next(
        (name for name in files.members(file) if name.endswith("/extra/signature.json")), None
    )
    if member is None:
        return {}
    try:
        with zipfile.ZipFile(file) as archive:
            document = json.loads(archive.read(member))
        return {
            key: tuple(map(_tensor_spec, document[key]))
            for key in ("inputs", "outputs")
            if key in document
        }
    except (ValueError, KeyError, TypeError) as error:
        raise errors.LoadFailed(
            f"{file.name}: signature.json must be {{inputs: [{{name, datatype, shape}}], outputs: […]}}: {error}"
        ) from error


def _tensor_spec(entry: Mapping[str, Any]) -> model.TensorSpec:
    return model.TensorSpec(
        str(entry["name"]), str(entry["datatype"]), tuple(int(size) for size in entry["shape"])
    )


def _exported(
    torch: Any, archive: _Archive, spec: model.ModelSpec, device: str
) -> torch_model.TorchProgram:
    if not spec.trust:
        _check_no_pickles(torch, archive.file)
    with _EXPORTING:
        program = _read(torch, archive)
        if device != "cpu":
            program = torch.export.passes.move_to_device_pass(program, device)
        module = program.module()
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    taken = [nodes.get(name) for name in program.graph_signature.user_inputs]
    given = [nodes.get(name) for name in program.graph_signature.user_outputs]
    if not all(isinstance(value, torch.Tensor) for value in taken + given):
        raise errors.LoadFailed(
            f"{archive.file.name} takes or gives something that is not a tensor"
        )
    inputs = tuple(
        _spec_of(name, value)
        for name, value in zip(program.graph_signature.user_inputs, taken, strict=True)
    )
    structure = torch.utils._pytree.tree_unflatten(given, program.call_spec.out_spec)  # noqa: SLF001 how torch.export itself names what it gives
    outputs = spec.outputs or tuple(
        _spec_of(name, value) for name, value in torch_model.named(structure).items()
    )
    read = torch_model.TorchProgram(
        module,
        _flat_call(torch, module, program.call_spec.in_spec),
        inputs,
        outputs,
        _rows_max(program, taken),
    )
    return _renamed_inputs(read, spec)


def _read(torch: Any, archive: _Archive) -> Any:
    """As `torch.export.load` does it, which copies the weights, but with those that can be in the mapping."""
    package = torch.export.pt2_archive._package  # noqa: SLF001 torch is pinned, and its own reader lets no one say where weights lie
    reader = package.PT2ArchiveReader(str(archive.file))
    if archive.mapping is None or str(reader.archive_version()) != package.ARCHIVE_VERSION_VALUE:
        return torch.export.load(str(archive.file))
    reader.archive_file = _MappedRecords(torch, reader.archive_file, archive.mapping)
    return package._load_exported_programs(reader, reader.get_file_names(), None)["model"]  # noqa: SLF001 the same


class _MappedRecords:
    """torch's reader of an archive's members, which hands out those that hold tensors without copying them."""

    def __init__(self, torch: Any, records: Any, mapping: mapped_weights.Mapped) -> None:
        self._torch = torch
        self._records = records
        self._mapping = mapping

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    def get_storage_from_record(self, name: str, count: int, dtype: Any) -> Any:
        """A tensor over all of the member."""
        storage = self._mapping.member(
            self._records.get_record_offset(name), self._records.get_record_size(name)
        )
        if storage is None:
            return self._records.get_storage_from_record(name, count, dtype)
        return self._torch.empty(0, dtype=dtype).set_(storage, 0, (count,), (1,))


def _flat_call(torch: Any, module: Any, in_spec: Any) -> Callable[..., Any]:
    """The module as a function of its tensors, however its own arguments nest them."""
    tree = torch.utils._pytree  # noqa: SLF001 the same
    arguments, keywords = tree.tree_unflatten(list(range(in_spec.num_leaves)), in_spec)
    if not keywords and all(isinstance(argument, int) for argument in arguments):
        return module  # type: ignore[no-any-return]

    def call(*tensors: Any) -> Any:
        nested, named = tree.tree_unflatten(list(tensors), in_spec)
        return module(*nested, **named)

    return call


def _spec_of(name: str, value: Any) -> model.TensorSpec:
    """The spec of an example tensor, whose sizes are numbers where they are fixed and symbols where not."""
    word = _WORDS.get(str(value.dtype).removeprefix("torch."))
    if word is None:
        raise errors.LoadFailed(
            f"tensor {name!r} is {value.dtype}, which the protocol has no datatype for"
        )
    return model.TensorSpec(
        name, word, tuple(size if isinstance(size, int) else -1 for size in value.shape)
    )


def _rows_max(program: Any, taken: Sequence[Any]) -> int | None:
    """Return the most rows that the program was exported for, or None for any number."""
    bounds = [
        program.range_constraints.get(value.shape[0].node.expr)
        for value in taken
        if value.dim() and not isinstance(value.shape[0], int)
    ]
    rows_max = min((float(bound.upper) for bound in bounds if bound is not None), default=math.inf)
    return int(rows_max) if rows_max < math.inf else None


def _renamed_inputs(
    program: torch_model.TorchProgram, spec: model.ModelSpec
) -> torch_model.TorchProgram:
    """With the inputs that were declared, in the program's order."""
    if not spec.inputs:
        return program
    if len(spec.inputs) != len(program.inputs):
        signatures.check_all(spec.inputs, [found.name for found in program.inputs], "input")
    agreed = {
        own: said for said, own in signatures.agreed(spec.inputs, program.inputs, "input").items()
    }
    return replace(program, inputs=tuple(agreed[found.name] for found in program.inputs))


def _check_no_pickles(torch: Any, file: Path) -> None:
    """Refuse an exported program with pickled objects beside its tensors: unpickling runs code. Raises LoadFailed."""
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
    if pickled or len(set(names)) < len(names):
        raise errors.LoadFailed(
            f"{file.name} holds code ({', '.join(pickled) or 'hidden members'}): set trust: true if you trust whoever made it"
        )


def _is_plain(torch: Any, sample: bytes) -> bool:
    try:
        torch.load(io.BytesIO(sample), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        return False
    return True


def _verified(
    torch: Any, program: torch_model.TorchProgram, spec: model.ModelSpec, device: str
) -> torch_model.TorchModel:
    """The program with a signature that predictions with made-up inputs have confirmed."""
    class_ = (
        torch_model.CudaModel
        if device == "cuda"
        else torch_model.MappedModel
        if program.weights
        else torch_model.TorchModel
    )
    runner = class_(torch, program, model.Signature(program.inputs, ()), {})
    probed = _probed(runner, program)
    found = runner.in_words(probed.outputs)
    signatures.check_words(found, "output")
    given = signatures.agreed(program.outputs, found, "output")
    has_rows = probed.is_batchable and signatures.are_batches((*program.inputs, *given))
    rows_max = program.rows_max if has_rows else None
    signature = model.Signature(
        program.inputs,
        tuple(given),
        has_batch_dimension=has_rows,
        can_join=has_rows and (rows_max is None or rows_max >= spec.max_batch_size),
        rows_max=rows_max,
        platform=PLATFORM,
    )
    loaded = class_(torch, program, signature, {out.name: own for out, own in given.items()})
    loaded.probe = probed.inputs
    return loaded


def _probed(runner: torch_model.TorchModel, program: torch_model.TorchProgram) -> probing.Probed:
    try:
        return probing.explore(runner.everything, program.inputs)
    except probing.ProbeFailed as failed:
        shapes = ", ".join(
            f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in program.inputs
        )
        raise errors.LoadFailed(
            f"the model does not take its inputs ({shapes}): {torch_model.reason(failed.cause)}"
        ) from failed.cause
