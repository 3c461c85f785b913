"""PyTorch programs: TorchScript archives (`.pt`) and exported programs (`.pt2`)."""

from __future__ import annotations

import functools
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    files,
    mapped_weights,
    options,
    prerequisites,
    probing,
    row_proof,
    signatures,
    torch_export,
    torch_model,
    torchscript,
)

PLATFORM = "pytorch_libtorch"


def _looks_like_torch(file: Path) -> bool:
    return any(
        name.endswith(("/archive_format", "/constants.pkl", "/data.pkl"))
        for name in files.zip_members(file)
    )


LAYOUT = files.Layout(
    ("model.pt2", "model.pt", "model.pth"), (".pt2", ".pt", ".pth"), _looks_like_torch
)


class TorchRuntime(model_runtime.Runtime):
    """Loads TorchScript and `torch.export` archives. Both are programs: load only trusted ones."""

    name = "torch"
    library = "torch"
    # Measured: see docs/decisions/0162-libraries-need-room.md.
    library_bytes = 220 << 20
    can_offload = True

    def accepts(self, artifact: model_runtime.Artifact) -> bool:
        """Return whether there is such an archive, by name or content."""
        return LAYOUT.find(artifact.path) is not None

    def prepare(self, device: str) -> None:
        """Import torch, with one thread for each prediction. Raises MissingExtra or LoadFailed."""
        prerequisites.check_device(device)
        with torch_export.LOADING:
            _warm_up()
        # The driver is there, but torch may be a build for CPUs.
        if device == "cuda" and not _library().cuda.is_available():
            raise errors.LoadFailed(
                "torch is installed without CUDA: pip install a CUDA build of torch"
            )

    def footprint_hint(self, artifact: model_runtime.Artifact, device: str) -> model.Footprint:
        """Return a little more than the file's size: weights are as big in memory as in it."""
        bytes_max = artifact.size_bytes * 5 // 4 + (4 << 20)
        return model.Footprint(bytes_max, bytes_max if device == "cuda" else 0)

    def load(
        self, artifact: model_runtime.Artifact, spec: model.ModelSpec, device: str
    ) -> torch_model.TorchModel:
        """Load the program in the archive. Raises LoadFailed."""
        self.prepare(device)
        file = files.find_model_file(spec, artifact, LAYOUT)
        _quieten()
        torch = _library()
        is_exported = _is_exported(file)
        if is_exported:
            options.Options(spec).check_known()
        try:
            # On a GPU weights are copies in any case.
            mapping = mapped_weights.map_file(torch, artifact, file) if device == "cpu" else None
            if is_exported:
                program = torch_export.open_program(torch, file, mapping, spec, device)
            else:
                program = torchscript.open_program(torch, file, spec, device)
            if mapping is not None:
                program = replace(program, weights=mapping.weights(program.module, artifact))
        except errors.MeshError:
            raise
        except Exception as error:  # the bytes of a corrupt archive may mean anything
            raise errors.LoadFailed(
                f"torch can't load {file.name}: {torch_model.reason(error)}"
            ) from error
        return _verify(torch, program, spec, device)

    def find_row_mixing(
        self,
        loaded: model_runtime.LoadedModel,
        artifact: model_runtime.Artifact,  # noqa: ARG002 the program is in memory
        spec: model.ModelSpec,
    ) -> str | None:
        """Return None if the program's operators and numbers show that rows are kept apart."""
        assert isinstance(loaded, torch_model.TorchModel), "a model of another runtime"
        if loaded.probe is None:
            return "the model took no made-up inputs"
        return loaded.find_row_mixing(loaded.probe) or row_proof.find_difference(
            lambda feed: loaded.predict(feed, ()),
            loaded.signature.inputs,
            loaded.probe,
            signatures.rows_max(spec, loaded.signature),
        )


def _library() -> Any:
    return prerequisites.import_library("torch", "PyTorch", "torch")


@functools.cache
def _warm_up() -> None:
    """Make torch allocate what all models share, by loading the smallest of each kind."""
    torch = _library()
    # Models share the cores, so a request must not start a thread on each of them.
    torch.set_num_threads(1)
    torch_export.warm_up(torch)
    torch.jit.CompilationUnit("def smallest(x):\n    return x + 1\n").smallest(torch.zeros(1))


def _quieten() -> None:
    # TorchScript is deprecated but in use. torch.export logs what it also raises.
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)


def _is_exported(file: Path) -> bool:
    """Return whether the archive is an exported program, and not TorchScript.

    Raises LoadFailed if it is neither.
    """
    names = files.zip_members(file)
    if not names:
        raise errors.LoadFailed(
            f"{file.name} is not a whole archive as torch.export.save or torch.jit.save write it"
        )
    if any(name.endswith("/archive_format") for name in names):
        return True
    if any(name.endswith("/constants.pkl") for name in names):
        return False
    if "serialized_exported_program.json" in names:
        raise errors.LoadFailed(
            f"{file.name} was exported by an older torch; save it again with torch.export.save"
        )
    raise errors.LoadFailed(
        f"{file.name} holds weights or a pickled module, not a program; "
        "save it with torch.export.save or torch.jit.save"
    )


def _verify(
    torch: Any, program: torch_model.TorchProgram, spec: model.ModelSpec, device: str
) -> torch_model.TorchModel:
    """Return the program as a model, with a signature confirmed by predictions."""
    class_ = torch_model.TorchModel
    if device == "cuda":
        class_ = torch_model.CudaModel
    elif program.weights:
        class_ = torch_model.MappedModel
    unverified = class_(torch, program, model.Signature(program.inputs, ()), {})
    probed = _probe(unverified, program, spec) if program.arguments is None else None
    if probed is None:
        signatures.check_specs(program.outputs, "output")
        outputs = dict.fromkeys(program.outputs, "")
    else:
        actual = unverified.with_bf16(probed.outputs)
        signatures.check_specs(actual, "output")
        outputs = signatures.agree(program.outputs, actual, "output")
    is_batchable = probed is not None and probed.is_batchable
    is_paired = probed is not None and bool(program.outputs)
    own_names = {output.name: own for output, own in outputs.items()} if is_paired else {}
    signature = _signature(program, spec, tuple(outputs), is_batchable=is_batchable)
    loaded = class_(torch, program, signature, own_names)
    loaded.probe = probed.inputs if probed else None
    return loaded


def _signature(
    program: torch_model.TorchProgram,
    spec: model.ModelSpec,
    outputs: tuple[model.TensorSpec, ...],
    *,
    is_batchable: bool,
) -> model.Signature:
    is_open = program.arguments is not None
    has_rows, can_join = signatures.rows_joined(
        spec,
        (*(() if is_open else program.inputs), *outputs),
        is_batchable=is_batchable,
        is_known=False,
    )
    return model.Signature(
        program.inputs,
        outputs,
        has_batch_dimension=has_rows,
        can_join=can_join,
        rows_max=program.rows_max if has_rows else None,
        platform=PLATFORM,
        optional=program.arguments.optional() if program.arguments else frozenset(),
        has_open_inputs=is_open,
        has_open_outputs=not program.outputs,
    )


def _probe(
    unverified: torch_model.TorchModel,
    program: torch_model.TorchProgram,
    spec: model.ModelSpec,
) -> probing.ProbeResult | None:
    """Return what made-up inputs or the sample show, or None if all that is made up is refused."""
    sample = signatures.read_sample(spec, program.inputs)
    try:
        return probing.probe(unverified.predict_all, program.inputs, sample, program.sizes_of)
    except probing.ProbeFailed as failed:
        if sample:
            raise signatures.refused_sample(failed.cause) from failed.cause
        return None
