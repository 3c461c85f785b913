"""Damage to the cache, and changes that a worker does not take, on a running mesh."""

from __future__ import annotations

import concurrent.futures
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

# While it runs, nothing else does in its worker: neither requests nor changes.
HOLDS_THE_GIL = """
import ctypes, pathlib

class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def predict(self, inputs):
        armed = pathlib.Path("ARMED")
        if armed.exists():
            armed.unlink()
            ctypes.PyDLL(None).sleep(9)
        return {"y": inputs["x"]}
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("models")
    document = {
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "models": traffic.models(folder, 4),
    }
    with running.mesh(document) as started:
        yield started


def scaled(mesh: running.Mesh, name: str) -> float:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [1.0] * 8}]}
    answer = mesh.http.post(f"/v2/models/{name}/infer", json=body).raise_for_status().json()
    return float(answer["outputs"][0]["data"][0])


def unload(mesh: running.Mesh, name: str) -> None:
    mesh.http.post(f"/mesh/v1/models/{name}/unload").raise_for_status()


def test_a_flipped_bit_in_the_cache_is_no_answer(mesh: running.Mesh) -> None:
    assert scaled(mesh, "m3") == 3.0
    (cached,) = (mesh.home / "cache" / "objects").rglob("m3.onnx")
    content = cached.read_bytes()
    # 3.0 is 00 00 40 40 in the file; one bit more is another number.
    at = content.index(b"\x00\x00\x40\x40")
    for damaged in (content[:at] + b"\x00\x00\x80\x41" + content[at + 4 :], content[:10]):
        cached.chmod(0o600)
        cached.write_bytes(damaged)
        unload(mesh, "m3")
        assert scaled(mesh, "m3") == 3.0
        assert cached.read_bytes() == content


def test_a_cache_that_is_removed_heals(mesh: running.Mesh) -> None:
    assert scaled(mesh, "m1") == 1.0
    shutil.rmtree(mesh.home / "cache")
    for name, factor in (("m2", 2.0), ("m1", 1.0)):
        unload(mesh, name)
        assert scaled(mesh, name) == factor


def test_nobody_else_may_read_what_the_mesh_writes(mesh: running.Mesh) -> None:
    assert stat.S_IMODE(mesh.home.stat().st_mode) == 0o700
    written = [path for path in mesh.home.rglob("*") if path.name not in ("config.yaml", "up.out")]
    open_to_others = [
        path for path in written if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]
    assert written
    assert open_to_others == []


def test_a_change_that_the_worker_does_not_take_is_no_success(
    mesh: running.Mesh, tmp_path: Path
) -> None:
    first, second = (traffic.write_model(tmp_path / f"{n}.onnx", n) for n in (8, 9))
    mesh.http.put("/mesh/v1/models/late", json={"uri": str(first)}).raise_for_status()
    assert scaled(mesh, "late") == 8.0
    code, armed = tmp_path / "model.py", tmp_path / "armed"
    code.write_text(HOLDS_THE_GIL.replace("ARMED", str(armed)))
    entry = {"uri": str(code), "runtime": "python", "trust": True}
    mesh.http.put("/mesh/v1/models/busy", json=entry).raise_for_status()
    mesh.http.post("/mesh/v1/models/busy/load").raise_for_status()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        armed.touch()
        busy = pool.submit(scaled, mesh, "busy")
        support.wait_until(lambda: not armed.exists(), 60, "the model runs")
        late = mesh.http.put("/mesh/v1/models/late", json={"uri": str(second)})
        assert busy.result() == 1.0
    assert late.status_code == 504
    assert "worker default-0 did not take it" in late.json()["error"]
    support.wait_until(lambda: scaled(mesh, "late") == 9.0, 30, "the change is taken")
    mesh.http.put("/mesh/v1/models/late", json={"uri": str(second)}).raise_for_status()
