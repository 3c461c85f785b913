"""A PyTorch program in memory, with its weights on the CPU, on a GPU or in a mapped file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import (
    datatypes,
    files,
    mapped_weights,
    probing,
    refusals,
    row_proof,
    row_rules,
    signatures,
    torch_rows,
    torchscript_arguments,
)


@dataclass(frozen=True, slots=True)
class TorchProgram:
    """The content of a file.

    `call` takes one tensor for each of `inputs`, in that order; with `arguments`, which nobody
    declared, it takes those by their names, and `inputs` are what is known of them. `outputs` are
    as the file says, empty if it doesn't. `rows_max` bounds the first dimension; None for any
    number of rows. `is_pure`: a run changes nothing of the module but its tensors. `is_stateless`:
    it does not change those either. `is_training`: it may drop values at random, or use all rows.
    `weights` are the module's tensors that lie in a mapped file.
    `sizes_of` gives shapes of the inputs that the file allows.
    """

    module: Any
    call: Callable[..., Any]
    inputs: tuple[model.TensorSpec, ...]
    outputs: tuple[model.TensorSpec, ...] = ()
    rows_max: int | None = None
    is_pure: bool = True
    is_stateless: bool = True
    is_training: bool = False
    weights: mapped_weights.MappedTensors | None = None
    sizes_of: probing.SizesOf | None = None
    arguments: torchscript_arguments.OpenArguments | None = None


class TorchModel(model_runtime.LoadedModel):
    """A program and its signature.

    `own_names` are the program's names of declared outputs, by ours. Without a declaration of
    outputs the program gives what it likes.
    """

    def __init__(
        self,
        torch: Any,
        program: TorchProgram,
        signature: model.Signature,
        own_names: Mapping[str, str],
    ) -> None:
        self.signature = signature
        self.capabilities = self._capabilities(program)
        self._torch = torch
        self._inference_mode = torch.inference_mode
        self._module = program.module
        self._call = program.call
        self._arguments = program.arguments
        self._inputs = tuple((spec.name, spec.datatype == "BF16") for spec in program.inputs)
        self._own_names = dict(own_names)
        self._bf16_outputs = {
            self._own_names.get(spec.name, spec.name)
            for spec in signature.outputs
            if spec.datatype == "BF16"
        }
        self._running: set[object] = set()
        self._still_read: list[Any] = []
        self._weights = program.weights
        self._is_pure = program.is_pure
        self._is_stateless = program.is_stateless
        self._is_training = program.is_training

    def _capabilities(self, program: TorchProgram) -> model_runtime.Capabilities:
        # Several threads may call a module without gradients, unless it writes to its own tensors:
        # one run would then read what another has written.
        return model_runtime.Capabilities(is_reentrant=program.is_stateless)

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Call the program. Shapes and datatypes are the signature's.

        Raises InvalidRequest for what the program refuses, ModelRaised if memory or a device fails.
        """
        answer = self.predict_all(inputs)
        if not self.signature.outputs or self.signature.has_open_outputs:
            signatures.check_requested(outputs, answer)
            return {name: answer[name] for name in outputs} if outputs else answer
        if not self._own_names:
            self._pair_outputs(answer)
        if outputs:
            signatures.check_requested(outputs, self._own_names)
        try:
            return {name: answer[self._own_names[name]] for name in outputs or self._own_names}
        except KeyError as missing:
            raise errors.ModelRaised(f"forward did not return {missing}") from None

    def _pair_outputs(self, answer: Mapping[str, np.ndarray]) -> None:
        """Pair the declared outputs with the first answer: no made-up inputs were taken."""
        given = self.with_bf16(signatures.learn(answer))
        try:
            outputs = signatures.agree(self.signature.outputs, given, "output")
        except errors.LoadFailed as error:
            raise errors.ModelRaised(error.message) from None
        self._own_names = {output.name: own for output, own in outputs.items()}

    def predict_all(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return all outputs under the program's own names, with shapes and errors as `predict`.

        Raises InvalidRequest and ModelRaised.
        """
        tensors, keywords = self._bound(inputs)
        run = object()  # A set of marks: threads would lose updates of a count.
        self._running.add(run)
        try:
            with self._inference_mode():
                return {
                    name: self._array(name, value)
                    for name, value in name_outputs(self._call(*tensors, **keywords)).items()
                }
        except errors.MeshError:
            raise
        except Exception as error:  # torch raises RuntimeError, IndexError, AssertionError, …
            raise refusals.refusal(error, reason(error)) from error
        finally:
            self._running.discard(run)
            if not self._running:
                self._still_read.clear()

    def _bound(self, inputs: Mapping[str, np.ndarray]) -> tuple[list[Any], dict[str, Any]]:
        """Return the program's positional and keyword arguments."""
        if self._arguments is None:
            return [self._tensor(inputs[name], is_bf16) for name, is_bf16 in self._inputs], {}
        return [], self._arguments.bind(inputs, lambda array: self._tensor(array, is_bf16=False))

    def find_row_mixing(self, probe: Mapping[str, np.ndarray]) -> str | None:
        """Return None if no operator that the program calls mixes rows, else which one may.

        `probe` are inputs of one row that the program takes.
        """
        if not self._is_pure:
            return "a run changes attributes of the module"
        if self._is_training:
            return "it was saved in training mode"
        if not self._is_stateless:
            return "a run changes tensors of the module"
        feeds = [row_proof.several_rows(probe, rows) for rows in row_rules.ROWS]
        first, second = (
            [self._tensor(feed[name], is_bf16) for name, is_bf16 in self._inputs] for feed in feeds
        )
        try:
            torch_rows.check_control_flow(self._torch, self._module)
            torch_rows.walk(self._torch, self._call, (first, second), name_outputs)
        except row_rules.RowsMix as mix:
            return str(mix)
        return None

    def close(self) -> None:
        """Free the module, and its memory with it."""
        self._free(mapped_weights.tensors_of(self._module))
        del self._module, self._call

    def _free(self, tensors: Sequence[Any]) -> None:
        # A run goes on after its caller has left, and may be reading the storages: unmapping them
        # now would kill the process.
        storages = [tensor.untyped_storage() for tensor in tensors]
        mapped_weights.free(self._torch, tensors)
        if self._running:
            self._still_read.extend(storages)

    def _tensor(self, array: np.ndarray, is_bf16: bool) -> Any:
        # torch warns of read-only arrays, such as those that lie in a received message.
        tensor = self._torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.view(self._torch.bfloat16) if is_bf16 else tensor

    def _array(self, name: str, value: Any) -> np.ndarray:
        if not isinstance(value, self._torch.Tensor):
            return datatypes.to_wire(value)
        plain = value.detach().cpu().contiguous()
        if plain.dtype == self._torch.bfloat16:
            plain = self._bfloat16(name, plain)
        if not self._is_stateless:
            # The tensor may be one of the module's, which the next run writes to.
            plain = plain.clone()
        return np.asarray(plain.numpy())

    def _bfloat16(self, name: str, tensor: Any) -> Any:
        """Return the bits of an output that is known as BF16, else the numbers as FP32.

        Bits alone do not show that they are no whole numbers.
        """
        is_unpaired = not self._own_names and not self.signature.has_open_outputs
        if name not in self._bf16_outputs and not is_unpaired:
            return tensor.float()
        self._bf16_outputs.add(name)
        return tensor.view(self._torch.uint16)

    def with_bf16(self, outputs: Sequence[model.TensorSpec]) -> tuple[model.TensorSpec, ...]:
        """Return specs of outputs, with BF16 for those whose arrays are the bits of bfloat16."""
        return tuple(
            replace(spec, datatype="BF16") if spec.name in self._bf16_outputs else spec
            for spec in outputs
        )


class CudaModel(TorchModel):
    """A program on a GPU, whose weights can be offloaded to host memory."""

    def _capabilities(self, program: TorchProgram) -> model_runtime.Capabilities:
        weights = (*program.module.parameters(), *program.module.buffers())
        gpu_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
        return replace(super()._capabilities(program), gpu_bytes=gpu_bytes)

    def offload(self) -> None:
        """Move parameters and buffers to host memory."""
        self._module.to("cpu")
        # torch keeps freed GPU memory for itself otherwise.
        self._torch.cuda.empty_cache()

    def onload(self) -> None:
        """Move parameters and buffers back to the GPU."""
        self._module.to("cuda")

    def _tensor(self, array: np.ndarray, is_bf16: bool) -> Any:
        return super()._tensor(array, is_bf16).to("cuda")


class MappedModel(TorchModel):
    """A program with weights in a mapped file, which it can detach and attach again."""

    def _capabilities(self, program: TorchProgram) -> model_runtime.Capabilities:
        assert program.weights is not None, "a program without mapped weights"
        return replace(
            super()._capabilities(program),
            can_detach=program.is_pure and program.is_stateless and program.weights.is_all,
            mapped_bytes=program.weights.mapped_bytes,
        )

    def detach(self) -> None:
        """Unmap the weights."""
        self._free(self._mapped.tensors)

    def attach(self, artifact: model_runtime.Artifact) -> None:
        """Map the weights again. Raises LoadFailed."""
        self._mapped.attach(artifact)

    @property
    def _mapped(self) -> mapped_weights.MappedTensors:
        assert self._weights is not None, "a program without mapped weights"
        return self._weights


_RAISED = re.compile(r"^(?:builtins\.)?\w+(?:Error|Exception): (.*)$", re.MULTILINE)
"""The line at the end of TorchScript's tracebacks that says what was raised."""


def name_outputs(outputs: Any) -> dict[str, Any]:
    """Return a program's outputs by name, without those that are None.

    These are a dictionary's own names, `output` for one tensor, `output_0`, … for several, and
    `output_1_0`, … for those of a tuple inside of a tuple.
    """
    if isinstance(outputs, Mapping):
        return _flattened({str(name): value for name, value in outputs.items()})
    return _flattened({"output": outputs})


def _flattened(outputs: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in outputs.items():
        if isinstance(value, Mapping):
            named |= _flattened({f"{name}_{key}": part for key, part in value.items()})
        elif isinstance(value, (tuple, list)) and not _is_plain(value):
            named |= _flattened({f"{name}_{place}": part for place, part in enumerate(value)})
        elif value is not None:
            named[name] = value
    return named


def _is_plain(values: Sequence[Any]) -> bool:
    """Return whether a list holds numbers or texts alone, which are one tensor."""
    return bool(values) and all(isinstance(value, (bool, int, float, str)) for value in values)


def reason(error: BaseException) -> str:
    """Return the message of an error, without the traceback that TorchScript adds to it."""
    raised = _RAISED.findall(str(error))
    return str(raised[-1]) if raised else files.summarize(error)
