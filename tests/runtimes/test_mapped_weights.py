from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.runtimes import mapped_weights, pytorch
from meshserve.worker.models import process_memory
from tests.runtimes import contract
from tests.runtimes.torch_files import exported, rewritten, scripted

WIDTH = 640
ROWS = {"x": np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)}
DECLARED = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, WIDTH]}]}
BYTES = 3 * WIDTH * WIDTH * 4


class Tied(torch.nn.Module):
    """Three matrices of one size, two of them equal, one used twice, and batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.equal = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.other = torch.nn.Linear(WIDTH, WIDTH)
        self.again = self.first
        self.norm = torch.nn.BatchNorm1d(WIDTH)
        with torch.no_grad():
            self.equal.weight.copy_(self.first.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.norm(self.again(self.other(self.equal(self.first(x)))))
        return answer


class Counting(torch.nn.Module):
    """Remembers in a tensor how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(WIDTH, WIDTH))
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight * self.calls.add_(1)


class Numbering(Counting):
    """Remembers it in a number as well."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.number += 1
        return x @ self.weight * self.number


def file(path: Path, module: Any) -> Any:
    if path.suffix == ".pt2":
        return exported(path, module, torch.zeros(2, WIDTH))
    return scripted(path, module, **{"signature.json": DECLARED})


@pytest.fixture(scope="module", params=["model.pt", "model.pt2"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return file(tmp_path_factory.mktemp("mapped") / request.param, Tied())


def load(path: Path, *, is_cached: Any = True) -> Any:
    artifact = replace(contract.artifact(path), is_cached=is_cached)
    return pytorch.TorchRuntime().load(artifact, contract.spec(), "cpu"), artifact


def answer(loaded: model_runtime.LoadedModel) -> Any:
    return loaded.predict(ROWS, ())["output"].tobytes()


def test_a_mapped_model_answers_bit_for_bit_as_a_plain_one(path: Path) -> None:
    (mapped, artifact), (plain, _) = load(path), load(path, is_cached=False)
    assert answer(mapped) == answer(plain)
    assert BYTES < mapped.capabilities.mapped_bytes < BYTES * 1.05
    assert mapped.capabilities.can_detach
    for _ in range(3):
        mapped.detach()
        mapped.attach(artifact)
        assert answer(mapped) == answer(plain)


def test_its_weights_take_no_memory_of_the_process_s_own(path: Path) -> None:
    load(path)[0].close()
    before = process_memory.OWN.mark()
    loaded, _ = load(path)
    answer(loaded)
    assert process_memory.OWN.mark().allocated_bytes - before.allocated_bytes < BYTES / 4


def test_files_that_may_change_and_small_files_are_copied(path: Path, tmp_path: Path) -> None:
    assert not load(path, is_cached=False)[0].capabilities.mapped_bytes
    small = exported(tmp_path / "model.pt2", torch.nn.Linear(4, 4), torch.zeros(2, 4))
    assert not load(small)[0].capabilities.mapped_bytes


def test_it_is_found_in_its_folder_and_when_that_was_moved(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / path.name).write_bytes(path.read_bytes())
    loaded, artifact = load(folder)
    before = answer(loaded)
    loaded.detach()
    folder.rename(tmp_path / "other")
    with pytest.raises(errors.LoadFailed, match="can't be mapped"):
        loaded.attach(artifact)
    loaded.attach(replace(artifact, path=tmp_path / "other"))
    assert answer(loaded) == before


def test_another_file_in_its_place_is_refused(path: Path, tmp_path: Path) -> None:
    loaded, artifact = load(path)
    (tmp_path / path.name).write_bytes(path.read_bytes()[:-1])
    with pytest.raises(errors.LoadFailed, match="is not the file that it was"):
        loaded.attach(replace(artifact, path=tmp_path / path.name))


def test_compressed_weights_are_not_mapped(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / path.name
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    loaded, _ = load(packed)
    assert answer(loaded) == answer(load(path)[0])
    assert not loaded.capabilities.mapped_bytes


def test_weights_that_lie_askew_are_copied(path: Path, tmp_path: Path) -> None:
    askew = tmp_path / path.name
    askew.write_bytes(path.read_bytes())
    loaded, _ = load(rewritten(askew, lambda _name, content: content))
    assert answer(loaded) == answer(load(path)[0])


@pytest.mark.parametrize("name", ["model.pt", "model.pt2"])
def test_writes_of_a_run_are_gone_after_attaching(tmp_path: Path, name: str) -> None:
    path = file(tmp_path / name, Counting())
    content = path.read_bytes()
    loaded, artifact = load(path)
    answers = []
    for _ in range(2):
        loaded.detach()
        loaded.attach(artifact)
        answers += [answer(loaded), answer(loaded)]
    assert answers[0] == answers[2] != answers[1] == answers[3]
    assert path.read_bytes() == content


def test_a_scripted_model_that_remembers_outside_of_its_tensors_is_not_kept(tmp_path: Path) -> None:
    loaded, _ = load(file(tmp_path / "model.pt", Numbering()))
    assert loaded.capabilities.mapped_bytes
    assert not loaded.capabilities.can_detach


def test_two_tensors_never_share_a_place_in_the_file(path: Path) -> None:
    loaded, _ = load(path)
    matrices = [place for place in loaded._weights._locations if place.shape == (WIDTH, WIDTH)]
    assert len({place.first for place in matrices}) == 3


def test_only_an_uncompressed_member_is_found(path: Path) -> None:
    artifact = replace(contract.artifact(path), is_cached=True)
    mapped = mapped_weights.map_file(torch, artifact, path)
    assert mapped is not None
    start, length_bytes = next(iter(mapped._stored))
    member: Any = mapped.member(start, length_bytes)
    assert member.nbytes() == length_bytes
    assert mapped.member(start + 64, length_bytes) is None


@pytest.mark.edge
def test_broken_files_of_ours_are_refused_too(path: Path, tmp_path: Path) -> None:
    content, broken = path.read_bytes(), tmp_path / path.name
    for part in range(1, 12):
        broken.write_bytes(content[: len(content) * part // 12])
        with pytest.raises(errors.LoadFailed):
            load(broken)
