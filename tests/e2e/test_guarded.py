"""A mesh with API keys, from its first request to its drain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from tests import support
from tests.e2e import asking, behaviours, running, zoo

pytestmark = pytest.mark.edge

# Copied for each call: Triton's HTTP client writes into what it is given.
USER, ADMIN = {"authorization": "Bearer of-a-user"}, {"authorization": "Bearer of-an-admin"}
NO_KEY = "no valid API key came with the request"
NOT_ADMIN = "this API key may not manage the mesh"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[running.Mesh]:
    folder = tmp_path_factory.mktemp("guarded")
    zoo.write_onnx(folder / "linear.onnx", 1)
    sleeper = zoo.write_python(folder / "sleeper", behaviours.SLEEPER)
    (folder / "shared").mkdir()
    document = {
        "gateway": {
            "file_roots": [str(folder / "shared")],
            "keys": [
                {"client": "user", "key": "of-a-user"},
                {"client": "boss", "key_env": "ADMIN_KEY", "admin": True},
            ],
        },
        "pools": {"default": {"workers": 1, "memory": "1GiB"}},
        "models": [
            {"name": "linear", "uri": str(folder / "linear.onnx")},
            {
                "name": "sleeper",
                "uri": sleeper,
                "runtime": "python",
                "trust": True,
                "options": {"notes": str(folder / "notes")},
            },
        ],
    }
    with running.mesh(document, ADMIN_KEY="of-an-admin") as started:
        yield started


@pytest.fixture
def over_grpc(guarded: running.Mesh) -> Iterator[tritonclient.grpc.InferenceServerClient]:
    with tritonclient.grpc.InferenceServerClient(guarded.listen) as client:
        yield client


@pytest.fixture
def over_http(guarded: running.Mesh) -> Iterator[tritonclient.http.InferenceServerClient]:
    with tritonclient.http.InferenceServerClient(guarded.listen) as client:
        yield client


def row(over: Callable[..., Any]) -> list[Any]:
    return [over("x", np.ones((1, 4), np.float32), "FP32")]


@pytest.mark.parametrize("headers", [USER, ADMIN, {"x-api-key": "of-a-user"}])
def test_clients_with_a_key_are_served(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    headers: dict[str, str] | None,
) -> None:
    assert (
        over_grpc.infer(
            "linear", row(asking.over_grpc), headers=headers and dict(headers)
        ).as_numpy("y")[0, 0]
        == 4
    )
    assert (
        over_http.infer(
            "linear", row(asking.over_http), headers=headers and dict(headers)
        ).as_numpy("y")[0, 0]
        == 4
    )
    assert (
        over_grpc.get_model_metadata("linear", headers=headers and dict(headers)).name == "linear"
    )


@pytest.mark.parametrize(
    "headers", [None, {"authorization": "Bearer of-nobody"}, {"authorization": "Basic of-a-user"}]
)
def test_clients_without_a_key_are_refused(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    headers: dict[str, str] | None,
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: over_grpc.infer("linear", row(asking.over_grpc), headers=headers and dict(headers)),
        lambda: over_grpc.get_model_repository_index(headers=headers and dict(headers)),
        lambda: over_grpc.get_server_metadata(headers=headers and dict(headers)),
    ]
    for call in calls:
        with pytest.raises(InferenceServerException, match=NO_KEY) as caught:
            call()
        assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    calls = [
        lambda: over_http.infer("linear", row(asking.over_http), headers=headers and dict(headers)),
        lambda: over_http.load_model("linear", headers),
    ]
    for call in calls:
        with pytest.raises(InferenceServerException, match=NO_KEY) as caught:
            call()
        assert caught.value.status() == "401"


def test_only_admins_manage(
    over_grpc: tritonclient.grpc.InferenceServerClient,
    over_http: tritonclient.http.InferenceServerClient,
    guarded: running.Mesh,
) -> None:
    with pytest.raises(InferenceServerException, match=NOT_ADMIN) as caught:
        over_grpc.unload_model("linear", headers=dict(USER))
    assert caught.value.status() == "StatusCode.PERMISSION_DENIED"
    with pytest.raises(InferenceServerException, match=NOT_ADMIN) as caught:
        over_http.unload_model("linear", headers=dict(USER))
    assert caught.value.status() == "403"
    for method, path in (
        ("GET", "/mesh/v1/status"),
        ("DELETE", "/mesh/v1/models/linear"),
        ("POST", "/mesh/v1/apply"),
    ):
        assert guarded.http.request(method, path, headers=dict(USER)).status_code == 403
    over_grpc.load_model("linear", headers=dict(ADMIN))
    over_http.load_model("linear", headers=dict(ADMIN))
    assert guarded.http.get("/mesh/v1/status", headers=dict(ADMIN)).json()["state"] == "ready"


def test_health_is_open_and_metrics_are_not(guarded: running.Mesh) -> None:
    assert (
        guarded.http.get("/healthz").status_code == guarded.http.get("/readyz").status_code == 200
    )
    assert guarded.http.get("/metrics").status_code == 401
    assert guarded.http.get("/metrics", headers=dict(USER)).status_code == 200


def test_keys_are_in_no_file_or_log(guarded: running.Mesh) -> None:
    texts = (
        guarded.http.get("/mesh/v1/status", headers=dict(ADMIN)).text
        + guarded.http.get("/metrics", headers=dict(ADMIN)).text
    )
    logs = "".join(path.read_text() for path in (guarded.home / "logs").iterdir())
    assert "of-a-user" not in texts + logs + guarded.log()
    assert "of-an-admin" not in texts + logs + guarded.log()


def test_a_file_out_of_the_roots_is_the_owners_to_register(
    guarded: running.Mesh, tmp_path: Path
) -> None:
    zoo.write_onnx(tmp_path / "private.onnx", 3)
    refused = guarded.http.put(
        "/mesh/v1/models/private", json={"uri": str(tmp_path / "private.onnx")}, headers=ADMIN
    )
    assert refused.status_code == 403, refused.text
    words = ("models", "add", "private", tmp_path / "private.onnx")
    environment = {"MESHSERVE_API_KEY": "of-an-admin"}
    added = guarded.cli(*words, **environment)
    assert added.returncode == 0, added.stderr
    # An admin's key alone, as on another machine.
    elsewhere = guarded.cli(
        *("models", "add", "other", tmp_path / "private.onnx", "--endpoint", guarded.listen),
        **{**environment, "MESHSERVE_HOME": str(tmp_path)},
    )
    assert elsewhere.returncode == 1
    assert "gateway.file_roots" in elsewhere.stderr
    no_admin = guarded.cli(*words, MESHSERVE_API_KEY="of-a-user")
    assert NOT_ADMIN in no_admin.stderr


def test_a_registered_file_that_becomes_a_link_out_of_its_root_is_not_read(
    guarded: running.Mesh, tmp_path: Path
) -> None:
    shared = Path(guarded.document["gateway"]["file_roots"][0])
    zoo.write_onnx(shared / "moving.onnx", 1)
    zoo.write_onnx(tmp_path / "secret.onnx", 2)
    model = "/mesh/v1/models/moving"
    body = {"uri": str(shared / "moving.onnx")}
    guarded.http.put(model, json=body, headers=ADMIN).raise_for_status()
    (shared / "moving.onnx").unlink()
    (shared / "moving.onnx").symlink_to(tmp_path / "secret.onnx")
    loaded = guarded.http.post(f"{model}/load", headers=ADMIN)
    assert (loaded.status_code, "leads out of" in loaded.text) == (424, True), loaded.text


def test_a_drain_answers_accepted_requests_and_refuses_new_ones(
    guarded: running.Mesh, over_grpc: tritonclient.grpc.InferenceServerClient
) -> None:
    """Stays the last test of this file: it drains the mesh."""
    over_grpc.infer("sleeper", asking.sleeper(0.0, "warm"), headers=dict(USER))
    answers = []
    taken = threading.Thread(
        target=lambda: answers.append(
            over_grpc.infer("sleeper", asking.sleeper(4.0, "taken"), headers=dict(USER)).as_numpy(
                "name"
            )[0]
        )
    )
    taken.start()
    notes = Path(guarded.document["models"][1]["options"]["notes"])
    support.wait_until(lambda: "taken" in notes.read_text(), support.WAIT_S, "the model runs")
    guarded.process.terminate()
    support.wait_until(
        lambda: refusal(guarded) is not None, support.WAIT_S, "new requests are refused"
    )
    assert refusal(guarded) is grpc.StatusCode.UNAVAILABLE
    assert over_rest(guarded) in (503, None)
    taken.join()
    assert answers == [b"taken"]
    assert guarded.process.wait(60) == 0
    assert guarded.living() == set()


def refusal(mesh: running.Mesh) -> grpc.StatusCode | None:
    """Return the error code of a new client's request, or None if it succeeds."""
    with grpc.insecure_channel(mesh.listen) as channel:
        try:
            channel.unary_unary("/inference.GRPCInferenceService/ModelReady")(
                b"\x0a\x06linear", metadata=tuple(USER.items()), timeout=10
            )
        except grpc.RpcError as error:
            return error.code()
    return None


def over_rest(mesh: running.Mesh) -> int | None:
    """Return the status that a new client gets, or None if no server listens."""
    try:
        return httpx.get(
            f"http://{mesh.listen}/v2/models/linear", headers=dict(USER), timeout=10
        ).status_code
    except httpx.TransportError:
        return None
