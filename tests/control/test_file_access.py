from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from meshserve import errors
from meshserve.control import file_access
from meshserve.core.values import model
from meshserve.protocol import paths
from meshserve.protocol.pb import modelmesh_pb2 as mm
from tests.control import conftest

PUT = "/mesh/v1/models/new"
KEYS = [{"client": "boss", "key": "b", "admin": True}]


def access(*roots: object, owner_key: str = "k") -> file_access.FileAccess:
    return file_access.FileAccess(owner_key, lambda: tuple(map(str, roots)))


def spec(uri: object) -> model.ModelSpec:
    return model.ModelSpec(model.ModelId("m"), str(uri))


@pytest.fixture
async def stage(fresh: conftest.Stage) -> conftest.Stage:
    """A stage whose clients may register no local file."""
    await fresh.start({**conftest.CONFIG, "gateway": {"file_roots": []}})
    return fresh


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(b"a")
    (tmp_path / "secret.onnx").write_bytes(b"secret")
    return folder


def test_files_below_a_root_are_bound_to_it(root: Path) -> None:
    for uri in (root / "a.onnx", root, f"file://{quote(str(root))}/a%2Eonnx", root / "not-yet"):
        assert access("/nowhere", root).confine(spec(uri)).file_root == str(root)


@pytest.mark.parametrize("uri", ["s3://bucket/m", "https://host/m.onnx", "gs://b/m", "az://b/m"])
def test_other_sources_are_as_they_are(uri: str) -> None:
    assert access().confine(spec(uri)) == spec(uri)


def test_a_root_may_be_reached_by_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert access(tmp_path / "link").confine(spec(root / "a.onnx"))
    assert access(root).confine(spec(tmp_path / "link" / "a.onnx"))


SPELLINGS = [
    "{outside}",
    "file://{outside}",
    "FILE://{outside}",
    "file://localhost{outside}",
    "file:///{outside}",
    "{root}/../secret.onnx",
    "{root}//..//secret.onnx",
    "{root}/./nothing/../../secret.onnx",
    "file://{root}/%2e%2e/secret.onnx",
    "file://{root}/%2E%2E%2Fsecret.onnx",
    "file://{root}/../secret.onnx?x=1#allowed",
    "{root}-beside/secret.onnx",
    "{root}/link",
    "{root}/folder/secret.onnx",
    "/",
    "/proc/self/root{outside}",
    "/proc/self/environ",
]


@pytest.fixture
def spellings(root: Path, tmp_path: Path) -> list[str]:
    (root / "link").symlink_to(tmp_path / "secret.onnx")
    (root / "folder").symlink_to(tmp_path)
    (tmp_path / "allowed-beside").mkdir()
    return [text.format(root=root, outside=tmp_path / "secret.onnx") for text in SPELLINGS]


def test_no_spelling_leads_out_of_the_root(root: Path, spellings: list[str]) -> None:
    for uri in spellings:
        with pytest.raises(errors.PermissionDenied, match="may not be registered"):
            access(root).confine(spec(uri))


@pytest.mark.parametrize("uri", ["relative/m.onnx", "file://host/m.onnx", "ftp://h/m", "/a\0b", ""])
def test_what_is_no_uri_is_the_callers_mistake(uri: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        access("/").confine(spec(uri))


def test_without_roots_nothing_is_allowed(root: Path) -> None:
    with pytest.raises(errors.PermissionDenied, match=r"gateway\.file_roots"):
        access().confine(spec(root / "a.onnx"))


def test_the_owner_is_who_knows_the_key() -> None:
    assert access(owner_key="k").is_owner("k")
    for key in ("", "K", "kk", "\xe9"):
        assert not access(owner_key="k").is_owner(key)
    assert not access(owner_key="").is_owner("")


def test_who_may_apply_a_configuration() -> None:
    access().check_may_apply(is_owner=True)
    access("/").check_may_apply(is_owner=False)
    with pytest.raises(errors.PermissionDenied, match="meshserve up"):
        access("/models").check_may_apply(is_owner=False)


# Over HTTP


async def test_a_client_registers_what_the_roots_allow(
    fresh: conftest.Stage, root: Path, spellings: list[str]
) -> None:
    await fresh.start({**conftest.CONFIG, "gateway": {"file_roots": [str(root)], "keys": KEYS}})
    async with fresh.client(owner_key="guessed") as http:
        for uri in spellings:
            answer = await http.put(PUT, json={"uri": uri})
            assert answer.status_code == 403, (uri, answer.text)
        assert (await http.put(PUT, json={"uri": "~root/m.onnx"})).status_code == 403
        assert (await http.put(PUT, json={"uri": "~no-such-user/m.onnx"})).status_code == 400
        assert "new" not in fresh.names()
        (await http.put(PUT, json={"uri": str(root / "a.onnx")})).raise_for_status()
    assert fresh.declared(model.ModelId("new")).spec.file_root == str(root)


async def test_a_client_learns_nothing_of_other_files(stage: conftest.Stage) -> None:
    stage.missing.add("/none")
    async with stage.client(owner_key="") as http:
        answers = [await http.put(PUT, json={"uri": uri}) for uri in ("/none", "/some")]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert answers[0].text.replace("/none", "/some") == answers[1].text


async def test_the_owner_registers_any_file(stage: conftest.Stage) -> None:
    async with stage.client() as http:
        (await http.put(PUT, json={"uri": "/anywhere/m.onnx"})).raise_for_status()
    assert stage.declared(model.ModelId("new")).spec.file_root == ""
    # A client may not take the owner's model over.
    async with stage.client(owner_key="") as http:
        again = await http.put(PUT, json={"uri": "/anywhere/m.onnx", "pinned": True})
        assert again.status_code == 403


async def test_modelmesh_names_no_file_out_of_the_roots(stage: conftest.Stage) -> None:
    info = mm.ModelInfo(type="onnx", path="/etc/passwd")
    requests = {
        paths.REGISTER_MODEL: mm.RegisterModelRequest(modelId="new", modelInfo=info),
        paths.SET_VMODEL: mm.SetVModelRequest(vModelId="v", targetModelId="new", modelInfo=info),
    }
    async with stage.client() as http:
        for path, request in requests.items():
            answer = await http.post(
                path,
                content=request.SerializeToString(),
                headers={"content-type": "application/grpc"},
            )
            assert answer.headers["x-mesh-grpc-status"] == "7", answer.headers
    assert "new" not in stage.names()


async def test_modelmesh_asks_again_for_what_the_owner_registered(stage: conftest.Stage) -> None:
    await stage.plane.admin.register(
        stage.plane.admin.spec({"name": "new", "uri": "/a/m.onnx"}),
        is_replacing=True,
        is_owner=True,
    )
    known = stage.plane.admin.spec({"name": "new", "uri": "/a/m.onnx"})
    assert await stage.plane.admin.register(known, is_replacing=False) == ""


async def test_a_configuration_is_the_owners(stage: conftest.Stage) -> None:
    config = {**conftest.CONFIG, "gateway": {"file_roots": ["/"]}}
    async with stage.client(owner_key="") as http:
        assert (await http.post("/mesh/v1/apply", json=config)).status_code == 403
        assert (await http.put(PUT, json={"uri": "/some"})).status_code == 403
    async with stage.client() as http:
        applied = await http.post("/mesh/v1/apply", json=config)
        assert applied.json() == {"changes": ["clients may register files below /"]}
    async with stage.client(owner_key="") as http:
        (await http.put(PUT, json={"uri": "/some"})).raise_for_status()
        (await http.post("/mesh/v1/apply", json=config)).raise_for_status()


async def test_a_sample_is_no_way_to_read_a_file(stage: conftest.Stage, tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_text('{"x": [1]}')
    body = {"uri": "s3://bucket/m", "sample": str(tmp_path / "sample.json")}
    async with stage.client() as http:
        answer: httpx.Response = await http.put(PUT, json=body)
    assert answer.status_code == 400
    assert "sample" in answer.json()["error"]


async def test_uploaded_files_are_bound_to_their_folder(stage: conftest.Stage) -> None:
    body = {"parameters": {"config": "{}", "file:1/model.onnx": "YQ=="}}
    async with stage.client(owner_key="") as http:
        (await http.post("/v2/repository/models/new/load", json=body)).raise_for_status()
    declared = stage.declared(model.ModelId("new")).spec
    assert declared.file_root == declared.uri
