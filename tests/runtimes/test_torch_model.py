from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch

from meshserve.core.values import model
from meshserve.runtimes import torch_model
from tests.runtimes.torch_files import IMAGES, Cnn


def test_offloading_moves_the_module_and_brings_it_back() -> None:
    moves = []

    class Recorder(torch.nn.Module):
        def to(self, device: Any) -> Any:  # type: ignore[override]  # all that the model calls
            moves.append(device)
            return self

    program = torch_model.TorchProgram(Recorder(), Recorder(), (IMAGES,))
    copy = torch_model.CudaModel(torch, program, model.Signature((IMAGES,), ()), {})
    assert copy.capabilities.gpu_bytes == 0
    copy.offload()
    copy.onload()
    assert moves == ["cpu", "cuda"]


def test_the_bytes_on_a_gpu_are_those_of_the_weights() -> None:
    program = torch_model.TorchProgram(Cnn(), Cnn(), (IMAGES,))
    assert torch_model.CudaModel(
        torch, program, model.Signature((IMAGES,), ()), {}
    ).capabilities.gpu_bytes == 4 * (4 * 9 + 4 + 1440 + 10)


def test_a_closed_program_takes_no_memory_even_if_it_is_referenced() -> None:
    module = Cnn()
    weights = [weight.untyped_storage() for weight in module.parameters()]
    answer = module(torch.zeros(1, 1, 8, 8))
    copy = torch_model.TorchModel(
        torch,
        torch_model.TorchProgram(module, module, (IMAGES,)),
        model.Signature((IMAGES,), ()),
        {},
    )
    copy.close()
    assert not any(weight.untyped_storage().nbytes() for weight in module.parameters())
    assert all(storage.nbytes() for storage in weights)
    assert answer.shape == (1, 10)


class Waiting(torch.nn.Module):
    """A run that lasts as long as a test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(8))
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def forward(self, images: Any) -> Any:
        self.has_begun.set()
        self.may_end.wait(20)
        return images


def test_storages_of_a_running_call_stay_until_it_ends() -> None:
    module = Waiting()
    storage = module.weight.untyped_storage()
    copy = torch_model.TorchModel(
        torch,
        torch_model.TorchProgram(module, module, (IMAGES,)),
        model.Signature((IMAGES,), ()),
        {"output": "output"},
    )
    running = threading.Thread(
        target=copy.predict, args=({"images": np.zeros((1, 1, 8, 8), np.float32)}, ())
    )
    running.start()
    assert module.has_begun.wait(20)
    copy.close()
    assert [weight.data_ptr() for weight in copy._still_read] == [storage.data_ptr()]
    module.may_end.set()
    running.join(20)
    assert copy._still_read == []


def test_outputs_of_any_structure_have_names() -> None:
    one, other = np.zeros(1), np.ones(1)
    assert torch_model.name_outputs({"a": one}) == {"a": one}
    assert torch_model.name_outputs((one, other)) == {"output_0": one, "output_1": other}
    assert list(torch_model.name_outputs(one)) == ["output"]


def test_the_reason_is_the_last_line_of_torchscript() -> None:
    assert (
        torch_model.reason(RuntimeError("The following\nRuntimeError: index out of range"))
        == "index out of range"
    )
    assert torch_model.reason(RuntimeError("plain.")) == "plain"
