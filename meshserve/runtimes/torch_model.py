"""A PyTorch program in memory, ready to predict, wherever its weights lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import files, mapped_weights


@dataclass(frozen=True, slots=True)
class TorchProgram:
    """What a file holds, ready to be called with one tensor for each of `inputs`, in that order.

    `outputs` are as the file says, none if it doesn't. `rows_max` bounds the first dimension where the program does.
    `is_pure`: running it changes nothing of it but its tensors. `weights` are those of them that lie in a mapped file.
    """

    module: Any
    call: Callable[..., Any]
    inputs: tuple[model.TensorSpec, ...]
    outputs: tuple[model.TensorSpec, ...] = ()
    rows_max: int | None = None
    is_pure: bool = True
    weights: mapped_weights.Weights | None = None


class TorchModel(model_runtime.LoadedModel):
    """A program and its signature. Modules without gradients may be called by many threads at once."""

    capabilities = model_runtime.Capabilities(is_reentrant=True)

    def __init__(
        self,
        torch: Any,
        program: TorchProgram,
        signature: model.Signature,
        names: Mapping[str, str],
    ) -> None:
        self.signature = signature
        self.probe: Mapping[str, np.ndarray] | None = None
        self._torch = torch
        self._inference_mode = torch.inference_mode
        self._module = program.module
        self._call = program.call
        self._inputs = tuple((spec.name, spec.datatype == "BF16") for spec in program.inputs)
        self._names = dict(names)
        self._bf16_outputs: set[str] = set()
        self._running: set[object] = set()
        self._still_read: list[Any] = []

    def predict(
        self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Call the program. Raises InvalidRequest where sizes break what it was exported for, ModelRaised for its own errors."""
        given = self.everything(inputs)
        return {name: given[self._names[name]] for name in outputs or self._names}

    def everything(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs under the program's own names."""
        tensors = [self._tensor(inputs[name], is_bf16) for name, is_bf16 in self._inputs]
        run = object()
        self._running.add(run)
        try:
            with self._inference_mode():
                return {
                    name: self._array(name, value)
                    for name, value in named(self._call(*tensors)).items()
                }
        except AssertionError as error:
            raise errors.InvalidRequest(files.first_line(error)) from None
        except RuntimeError as error:
            raise errors.ModelRaised(reason(error)) from None
        finally:
            self._running.discard(run)
            if not self._running:
                self._still_read.clear()

    def close(self) -> None:
        """Let the module go, and its memory with it."""
        self._let_go(mapped_weights.tensors(self._module))
        del self._module, self._call

    def _let_go(self, tensors: Sequence[Any]) -> None:
        """A run whose caller left goes on, and may be reading what these point to: unmapping that would kill the process."""
        storages = [tensor.untyped_storage() for tensor in tensors]
        mapped_weights.let_go(self._torch, tensors)
        if self._running:
            self._still_read.extend(storages)

    def _tensor(self, array: np.ndarray, is_bf16: bool) -> Any:
        # torch warns of arrays that it must not write to, as those that lie in a received message are
        tensor = self._torch.from_numpy(array if array.flags.writeable else array.copy())
        return tensor.view(self._torch.bfloat16) if is_bf16 else tensor

    def _array(self, name: str, tensor: Any) -> np.ndarray:
        if not isinstance(tensor, self._torch.Tensor):
            raise errors.ModelRaised(
                f"the model gave a {type(tensor).__name__} where a tensor belongs"
            )
        plain = tensor.detach().cpu().contiguous()
        if plain.dtype == self._torch.bfloat16:
            self._bf16_outputs.add(name)
            plain = plain.view(self._torch.uint16)
        return np.asarray(plain.numpy())

    def in_words(self, found: Sequence[model.TensorSpec]) -> tuple[model.TensorSpec, ...]:
        """Outputs as their arrays look, with BF16 where the arrays are only its bits."""
        return tuple(
            replace(spec, datatype="BF16") if spec.name in self._bf16_outputs else spec
            for spec in found
        )


class CudaModel(TorchModel):
    """A program on a GPU, whose weights can be offloaded to host memory."""

    def __init__(
        self,
        torch: Any,
        program: TorchProgram,
        signature: model.Signature,
        names: Mapping[str, str],
    ) -> None:
        super().__init__(torch, program, signature, names)
        weights = (*program.module.parameters(), *program.module.buffers())
        gpu_bytes = sum(tensor.numel() * tensor.element_size() for tensor in weights)
        self.capabilities = replace(self.capabilities, gpu_bytes=gpu_bytes)

    def offload(self) -> None:
        """Move parameters and buffers to host memory."""
        self._module.to("cpu")
        self._torch.cuda.empty_cache()

    def onload(self) -> None:
        """Move them back."""
        self._module.to("cuda")

    def _tensor(self, array: np.ndarray, is_bf16: bool) -> Any:
        return super()._tensor(array, is_bf16).to("cuda")


class MappedModel(TorchModel):
    """The same with its weights in a mapped file, which it can let go of and have again."""

    def __init__(
        self,
        torch: Any,
        program: TorchProgram,
        signature: model.Signature,
        names: Mapping[str, str],
    ) -> None:
        assert program.weights is not None, "there is nothing mapped"
        super().__init__(torch, program, signature, names)
        self._weights = program.weights
        self.capabilities = replace(
            self.capabilities,
            can_detach=program.is_pure and program.weights.is_all,
            mapped_bytes=program.weights.mapped_bytes,
        )

    def detach(self) -> None:
        """Let the mapped weights go."""
        self._let_go(self._weights.tensors)

    def attach(self, artifact: model_runtime.Artifact) -> None:
        """Map them again. Raises LoadFailed."""
        self._weights.attach(artifact)


def named(given: Any) -> dict[str, Any]:
    """What a program gave, by name: a dictionary's own, `output` for one tensor, `output_0`, … for several."""
    if isinstance(given, Mapping):
        return {str(name): value for name, value in given.items()}
    if isinstance(given, (tuple, list)):
        return {f"output_{place}": value for place, value in enumerate(given)}
    return {"output": given}


def reason(error: BaseException) -> str:
    """What went wrong, from among the lines of TorchScript's own traceback."""
    lines = [line for line in str(error).splitlines() if line.startswith("RuntimeError: ")]
    return lines[-1].removeprefix("RuntimeError: ") if lines else files.first_line(error)
