"""What once broke a mesh and has no test of its own kind in this folder, against one real mesh.

The table of docs/reliability.md lists all of them, with the tests of the others.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import onnx
import pytest
import yaml

from tests import support
from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(240)]

LIMIT_S = 60.0
ADMIN, USER = "of-the-admin", "of-a-user"
SECRET = "h1dden"
REQUEST_BYTES_MAX = 4 << 20
ERRORS = ("KeyboardInterrupt", "GeneratorExit", "SystemExit", "asyncio.CancelledError")
RAISING = """
import asyncio

class Model:
    inputs = [("x", "FP32", [-1, 8])]
    outputs = [("y", "FP32", [-1, 8])]

    def predict(self, inputs):
        if inputs["x"][0, 0] > 1:
            raise {error}
        return {{"y": inputs["x"]}}
"""


def raising(folder: Path, error: str) -> dict[str, Any]:
    """Return the entry of a model that raises this error for a first value over 1."""
    folder.mkdir()
    (folder / "model.py").write_text(RAISING.format(error=error))
    return {"name": error, "uri": str(folder), "runtime": "python", "trust": True}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "torch.pt").write_bytes(b"never read")
    narrow = {"pool": "narrow", "uri": str(folder / "torch.pt"), "runtime": "torch"}
    document = {
        "gateway": {
            "request_bytes_max": REQUEST_BYTES_MAX,
            "keys": [
                {"client": "admin", "key": ADMIN, "admin": True},
                {"client": "user", "key": USER},
            ],
        },
        "pools": {
            "default": {"workers": 1, "memory": "1GiB"},
            "narrow": {"workers": 1, "memory": "200MiB"},
        },
        "models": [
            *traffic.models(folder, 2),
            *(raising(folder / error, error) for error in ERRORS),
            {"name": "beside", "pool": "narrow", "uri": str(folder / "m1.onnx")},
            {"name": "torch", **narrow},
        ],
    }
    with running.mesh(document) as started:
        started.http.headers["authorization"] = f"Bearer {ADMIN}"
        support.wait_until(lambda: ask(started, "m1").status_code == 200, what="m1 answers")
        yield started


def ask(mesh: running.Mesh, name: str, value: float = 1.0) -> httpx.Response:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [value] * 8}
    return mesh.http.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}, timeout=LIMIT_S)


def load(mesh: running.Mesh, name: str, config: Any, files: dict[str, bytes]) -> httpx.Response:
    """Send a model in a load request, as Triton's clients do."""
    content = {f"file:{path}": base64.b64encode(data).decode() for path, data in files.items()}
    parameters = {"config": config if isinstance(config, str) else json.dumps(config), **content}
    return mesh.http.post(f"/v2/repository/models/{name}/load", json={"parameters": parameters})


def test_ray_kills_nothing_of_a_mesh_when_another_program_takes_the_memory(
    mesh: running.Mesh,
) -> None:
    settings = [
        json.loads(base64.b64decode(word.partition("=")[2]))
        for pid in mesh.living()
        for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        if word.startswith("--config_list=")
    ]
    assert settings
    assert {setting["memory_monitor_refresh_ms"] for setting in settings} == {0}


def test_a_body_that_inflates_to_much_is_refused_and_others_are_answered(
    mesh: running.Mesh,
) -> None:
    values = b"1," * (20 * REQUEST_BYTES_MAX)
    bomb = gzip.compress(
        b'{"inputs":[{"name":"x","shape":[1,8],"datatype":"FP32","data":[' + values + b"1]}]}", 1
    )
    assert len(bomb) < REQUEST_BYTES_MAX
    sent = []

    def send() -> None:
        path, headers = "/v2/models/m0/infer", {"content-encoding": "gzip"}
        sent.append(mesh.http.post(path, content=bomb, headers=headers, timeout=LIMIT_S))

    thread = threading.Thread(target=send)
    thread.start()
    assert ask(mesh, "m1").status_code == 200
    thread.join()
    assert sent[0].status_code == 413, sent[0].text


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_of_any_kind_is_an_answer_and_the_worker_stays(
    mesh: running.Mesh, error: str
) -> None:
    before = mesh.pids()
    answer = ask(mesh, error, 9.0)
    assert (answer.status_code, error.rpartition(".")[2] in answer.text) == (500, True)
    assert ask(mesh, error).status_code == 200
    assert mesh.pids() == before


def test_down_signals_no_process_but_the_mesh(mesh: running.Mesh, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        noted = json.loads((mesh.home / "mesh.json").read_text())
        (tmp_path / "mesh.json").write_text(json.dumps({**noted, "pid": other.pid}))
        mesh.cli("down", MESHSERVE_HOME=str(tmp_path), MESHSERVE_API_KEY=ADMIN)
        is_alive = other.poll() is None
        other.communicate(b"\n")
    assert is_alive
    assert mesh.status()["state"] == "ready"


async def test_a_call_without_a_message_ends(mesh: running.Mesh) -> None:
    host, _, port = mesh.listen.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    # HPACK's literals without an index (RFC 7541, 6.2.2); flags: the stream and headers end.
    fields = [
        *((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"mesh")),
        *((b":path", b"/grpc.health.v1.Health/Check"), (b"te", b"trailers")),
        (b"content-type", b"application/grpc"),
    ]
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields
    )
    frame = len(block).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + block
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + frame)
    async with asyncio.timeout(LIMIT_S):
        while not await is_end(reader):
            pass
    writer.close()


async def is_end(reader: asyncio.StreamReader) -> bool:
    """Read a frame; return whether it ends its stream, by END_STREAM or RST_STREAM."""
    head = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    return head[3] == 3 or (head[3] in (0, 1) and bool(head[4] & 1))


def test_a_link_out_of_a_models_folder_is_not_followed(mesh: running.Mesh, tmp_path: Path) -> None:
    folder = tmp_path / "linked"
    traffic.write_model(folder / "model.onnx", 2)
    described = onnx.load(folder / "model.onnx")
    onnx.save(
        *(described, folder / "model.onnx"),
        save_as_external_data=True,
        location="data.bin",
        size_threshold=0,
    )
    (folder / "data.bin").unlink()
    (folder / "data.bin").symlink_to("/etc/passwd")
    answer = mesh.http.put("/mesh/v1/models/linked", json={"uri": str(folder)})
    if answer.status_code == 200:
        answer = ask(mesh, "linked")
    assert (answer.status_code, "outside of the model's folder" in answer.text) == (424, True)


def test_a_library_that_leaves_no_room_is_refused_and_others_in_the_pool_go_on(
    mesh: running.Mesh,
) -> None:
    refused = ask(mesh, "torch")
    assert refused.status_code == 424, refused.text
    assert "at least" in refused.text
    assert ask(mesh, "beside").json()["outputs"][0]["data"] == [1.0] * 8


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({}, "1/" + "n" * 300),
        ({}, "1/" + "d/" * 1100 + "m.onnx"),
        ('{"max_batch_size": 1e30}', "1/model.onnx"),
        ('{"max_batch_size": ' + "9" * 400 + "}", "1/model.onnx"),
    ],
    ids=["long name", "deep name", "float", "digits"],
)
def test_uploads_that_no_disk_and_no_number_takes_are_the_callers_mistake(
    mesh: running.Mesh, config: Any, path: str
) -> None:
    answer = load(mesh, "senseless", config, {path: b"any"})
    assert answer.status_code == 400, answer.text


def test_every_version_of_an_upload_is_checked_and_served(
    mesh: running.Mesh, tmp_path: Path
) -> None:
    files = {
        f"{version}/model.onnx": traffic.write_model(tmp_path / f"{version}.onnx", version * 3)
        for version in (1, 2)
    }
    contents = {path: file.read_bytes() for path, file in files.items()}
    config = {"backend": "onnxruntime", "version_policy": {"all": {}}}
    load(mesh, "sent", config, contents).raise_for_status()
    for version in (1, 2):
        answer = ask(mesh, f"sent/versions/{version}")
        assert answer.json()["outputs"][0]["data"] == [version * 3.0] * 8
    refused = load(mesh, "sent", config, {**contents, "1/model.onnx": b"broken"})
    assert refused.status_code >= 400
    assert ask(mesh, "sent/versions/1").json()["outputs"][0]["data"] == [3.0] * 8


Register = Callable[[running.Mesh, str, str], httpx.Response]
REGISTER: dict[str, Register] = {
    "model": lambda mesh, name, uri: mesh.http.put(f"/mesh/v1/models/{name}", json={"uri": uri}),
    "alias": lambda mesh, name, _: mesh.http.put(f"/mesh/v1/aliases/{name}", json={"model": "m1"}),
    "upload": lambda mesh, name, uri: load(
        mesh, name, {"backend": "onnxruntime"}, {"1/model.onnx": Path(uri).read_bytes()}
    ),
}


@pytest.mark.parametrize("way", REGISTER)
def test_a_name_with_another_meaning_in_a_path_is_refused(mesh: running.Mesh, way: str) -> None:
    answer = REGISTER[way](mesh, "stats", mesh.document["models"][1]["uri"])
    assert (answer.status_code, "nothing can be called 'stats'" in answer.text) == (400, True)
    assert mesh.http.get("/v2/models/stats").json()["model_stats"]


@pytest.mark.parametrize(
    "name", ["index", "ready", "load", "infer", "versions", "config", "health", "models", "%25a%3F"]
)
def test_all_other_words_of_the_api_are_names(mesh: running.Mesh, name: str) -> None:
    for way in ("model", "upload"):
        REGISTER[way](mesh, name, mesh.document["models"][1]["uri"]).raise_for_status()
        paths = (name, f"{name}/versions/1")
        for path in paths:
            assert ask(mesh, path).json()["outputs"][0]["data"] == [1.0] * 8
            described = mesh.http.get(f"/v2/models/{path}").raise_for_status().json()
            assert described["inputs"][0]["name"] == "x"
            assert mesh.http.get(f"/v2/models/{path}/ready").json()["ready"] is True
        mesh.http.post(f"/v2/repository/models/{name}/load").raise_for_status()
    answer = mesh.http.post(f"/v1/models/{name}:predict", json={"instances": [[1.0] * 8]})
    assert answer.json() == {"predictions": [[1.0] * 8]}
    mesh.http.delete(f"/mesh/v1/models/{name}").raise_for_status()


@pytest.mark.parametrize("name", ["a%2Fb", "a%0Ab", "%20", "%2e%2e%2fb"])
def test_names_that_no_url_can_hold_are_refused(mesh: running.Mesh, name: str) -> None:
    uri = mesh.document["models"][1]["uri"]
    answer = REGISTER["model"](mesh, name, uri)
    assert answer.status_code in (400, 404), answer.text


def test_a_password_in_a_uri_is_shown_nowhere(mesh: running.Mesh) -> None:
    uri = f"http://u:{SECRET}@127.0.0.1:{support.free_port()}/m.onnx?sig={SECRET}"
    said = mesh.http.put("/mesh/v1/models/remote", json={"uri": uri}).text
    said += ask(mesh, "remote").text
    for path in ("/mesh/v1/models", "/mesh/v1/models/remote", "/mesh/v1/status", "/metrics"):
        said += mesh.http.get(path).text
    said += mesh.cli("models", "list", MESHSERVE_API_KEY=ADMIN).stdout + mesh.log()
    said += "".join(file.read_text() for file in (mesh.home / "logs").iterdir() if file.is_file())
    assert "m.onnx" in said
    assert SECRET not in said


@pytest.mark.parametrize("scheme", [b"bearer", b"BEARER"])
def test_http_1_0_and_any_case_of_the_scheme_are_served(mesh: running.Mesh, scheme: bytes) -> None:
    host, _, port = mesh.listen.partition(":")
    with socket.create_connection((host, int(port)), LIMIT_S) as connection:
        key = scheme + b" " + USER.encode()
        connection.sendall(b"GET /v2/models/m1 HTTP/1.0\r\nauthorization: " + key + b"\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert b" 200 OK\r\n" in answer


def test_an_archive_that_is_cut_is_refused_and_leaves_nothing_in_the_cache(
    mesh: running.Mesh, tmp_path: Path
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number in range(4):
            member = tarfile.TarInfo(f"m/{number}.onnx")
            member.size = 4 << 20
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    (tmp_path / "cut.tar.gz").write_bytes(packed.getvalue()[:-2000])
    mesh.http.put("/mesh/v1/models/cut", json={"uri": str(tmp_path / "cut.tar.gz")})
    answer = ask(mesh, "cut")
    assert (answer.status_code, "cut.tar.gz" in answer.text) == (424, True), answer.text
    kept = (mesh.home / "cache").rglob("*")
    assert max(path.stat().st_size for path in kept) < 4 << 20


def test_a_mesh_that_listens_elsewhere_is_still_found(mesh: running.Mesh) -> None:
    """Stays the last test of this file: the others ask the address before."""
    before, listen = mesh.pids(), f"127.0.0.1:{support.free_port()}"
    config = mesh.home / "moved.yaml"
    gateway = {**mesh.document["gateway"], "listen": listen}
    config.write_text(yaml.safe_dump({**mesh.document, "gateway": gateway}))
    assert mesh.cli("up", config, MESHSERVE_API_KEY=ADMIN).returncode == 0
    shown = json.loads(mesh.cli("status", "--json", MESHSERVE_API_KEY=ADMIN).stdout)
    assert shown["controller"]["pid"] in before
    assert mesh.http.get(f"http://{listen}/v2/models/m1/ready").json()["ready"] is True
    assert mesh.cli("down", MESHSERVE_API_KEY=ADMIN).returncode == 0
    assert mesh.living() == set()
