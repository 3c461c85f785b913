"""How a mesh is found again, changed and ended; that one begins, tests/e2e shows."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meshserve import app, config, errors
from meshserve.core.values import llm_spec, model
from meshserve.storage import artifact_store
from tests import support

HEALTHY = (200, '{"live": true}')


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers as its server's `answers` say, by path; after a drain only once more."""

    def _answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append(
            (self.path, self.headers.get("authorization"), json.loads(body) if body else None)
        )
        status, said = self.server.answers.get(self.path, (404, "nothing"))
        if self.path == "/mesh/v1/drain":
            self.server.answers["/healthz"] = (404, "")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(said.encode())

    do_GET = do_POST = _answer  # noqa: N815 - http.server's names

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def mesh(monkeypatch):
    """Something at `endpoint` that answers over HTTP."""
    monkeypatch.delenv("MESHSERVE_API_KEY", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        server.answers, server.asked = {"/healthz": HEALTHY}, []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def note(state_dir, endpoint, pid=0):
    app._note(state_dir / app.MESH_FILE, {"endpoint": endpoint, "pid": pid, "config": "/c.yaml"})


def part(state="ready", reason="", **fields):
    return {"state": state, "reason": reason, **fields}


def status(workers=(), gateways=(), registered=0, llms=()):
    return {
        "pools": [{"workers": list(workers)}],
        "gateways": list(gateways),
        "models": {"registered": registered},
        "llms": list(llms),
    }


@pytest.fixture
def read(tmp_path):
    """A configuration with nothing in it but keys."""

    def reading(gateway=""):
        (tmp_path / "config.yaml").write_text(f"state_dir: state\n{gateway}")
        return config.load(tmp_path / "config.yaml")

    return reading


# Where it is


@pytest.mark.parametrize(
    ("listen", "reached"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:81", "http://127.0.0.1:81"),
        (":82", "http://127.0.0.1:82"),
        ("10.0.0.7:83", "http://10.0.0.7:83"),
    ],
)
def test_a_mesh_is_reached_where_it_listens(listen, reached):
    assert app._reachable(listen) == reached


def test_a_note_is_whole_or_not_there(tmp_path):
    note(tmp_path, "http://h:1", 7)
    with (tmp_path / app.MESH_FILE).open() as opened:
        note(tmp_path, "http://h:2", 8)
        assert json.load(opened) == {
            "endpoint": "http://h:1",
            "pid": 7,
            "config": "/c.yaml",
        }  # a reader's file stays as it was
    assert app._noted(tmp_path) == {"endpoint": "http://h:2", "pid": 8, "config": "/c.yaml"}
    assert [path.name for path in tmp_path.iterdir()] == [app.MESH_FILE]


def test_a_mesh_that_answers_is_running(mesh, tmp_path):
    note(tmp_path, mesh.endpoint)
    assert app.running(tmp_path) == mesh.endpoint


def test_a_stale_note_is_no_mesh(tmp_path):
    assert app.running(tmp_path) is None
    note(tmp_path, f"http://127.0.0.1:{support.free_port()}")
    assert app.running(tmp_path) is None
    (tmp_path / app.MESH_FILE).write_text("{")
    assert app.running(tmp_path) is None


def test_another_server_where_the_mesh_was_is_no_mesh(mesh, tmp_path):
    note(tmp_path, mesh.endpoint)
    mesh.answers.clear()
    assert app.running(tmp_path) is None


# How far it is


def test_progress_counts_what_is_ready():
    told = status([part(id="default-0"), part("starting", id="default-1")], [part("starting")], 3)
    assert app._progress(told) == [
        app.StartProgress("controller", 1, 1),
        app.StartProgress("workers", 1, 2),
        app.StartProgress("gateway", 0, 1),
        app.StartProgress("models", 3, 3),
    ]


def test_llms_are_counted_where_there_are_any():
    llms = [part(replicas_min=1), part("starting", replicas_min=2), part("idle", replicas_min=0)]
    assert app._progress(status(llms=llms))[-1] == app.StartProgress("llms", 1, 2, "1 on demand")


def test_before_the_first_gateway_one_is_awaited():
    assert app.StartProgress("gateway", 0, 1) in app._progress(status())


def test_troubles_name_what_is_not_ready_and_why():
    told = status(
        [part(id="default-0"), part("lost", "no memory", id="default-1")], [part("starting")]
    )
    assert app._troubles(told) == "; default-1: no memory; gateway: starting"
    assert app._troubles(None) == ": the controller does not answer"


LLMS = [
    {"name": "a", "replicas_min": 1, "state": "ready"},
    {"name": "b", "replicas_min": 1, "state": "failed"},
    {"name": "c", "replicas_min": 0, "state": "idle"},
]


def test_llms_that_still_start_are_named(mesh, read):
    mesh.answers["/mesh/v1/status"] = (200, json.dumps({"llms": LLMS}))
    assert app.starting_llms(
        mesh.endpoint, read("gateway: {keys: [{client: b, key: k, admin: true}]}\n")
    ) == ["b"]
    assert mesh.asked == [("/mesh/v1/status", "Bearer k", None)]


@pytest.mark.parametrize("answer", [(503, "{}"), (200, "<html>")])
def test_where_the_mesh_does_not_tell_none_starts(mesh, read, answer):
    mesh.answers["/mesh/v1/status"] = answer
    assert app.starting_llms(mesh.endpoint, read()) == []


@pytest.mark.parametrize(
    ("runtime", "is_installed", "is_refused"),
    [("vllm", False, True), ("vllm", True, False), ("other", False, False)],
)
def test_a_mesh_on_this_machine_needs_vllm_for_its_llms(
    monkeypatch, runtime, is_installed, is_refused
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object() if is_installed else None)
    read = config.parse({"llms": [{"name": "a", "uri": "/a", "runtime": runtime}]})
    said = (
        pytest.raises(errors.MissingExtra, match=r"meshserve\[llm\].*meshserve\[llm-cpu\]")
        if is_refused
        else contextlib.nullcontext()
    )
    with said:
        app._require_engines(read)


# Changing it


def test_apply_sends_the_whole_configuration_and_returns_the_changes(mesh, read):
    mesh.answers["/mesh/v1/apply"] = (200, '{"changes": ["model a:1 added"]}')
    keys = "gateway: {keys: [{client: a, key: plain}, {client: b, key: yes-admin, admin: true}]}\n"
    assert app.apply(mesh.endpoint, read(keys)) == ["model a:1 added"]
    assert mesh.asked == [
        ("/mesh/v1/apply", "Bearer yes-admin", json.loads(json.dumps(config.document(read(keys)))))
    ]


def test_apply_takes_the_key_from_the_environment_where_the_configuration_has_none(
    mesh, read, monkeypatch
):
    monkeypatch.setenv("MESHSERVE_API_KEY", "from-env")
    mesh.answers["/mesh/v1/apply"] = (200, '{"changes": []}')
    app.apply(mesh.endpoint, read())
    assert mesh.asked[0][1] == "Bearer from-env"


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((400, '{"error": "pools: unknown"}'), errors.ConfigInvalid, "^pools: unknown$"),
        ((403, '{"error": "not an admin"}'), errors.MeshError, "^not an admin$"),
        ((502, "<html>bad gateway"), errors.Unavailable, "is no mesh: 502 <html>bad gateway"),
    ],
)
def test_apply_raises_what_the_mesh_says_is_wrong(mesh, read, answer, kind, words):
    mesh.answers["/mesh/v1/apply"] = answer
    with pytest.raises(kind, match=words) as caught:
        app.apply(mesh.endpoint, read())
    assert type(caught.value) is kind


def test_apply_where_no_mesh_is(read):
    with pytest.raises(errors.Unavailable, match="does not answer"):
        app.apply(f"http://127.0.0.1:{support.free_port()}", read())


# Ending it


def test_down_ends_the_process_that_holds_the_mesh(tmp_path):
    program = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        note(tmp_path, "http://h:1", process.pid)
        app.down(tmp_path, None)
        assert process.wait() == 7
    assert not (tmp_path / app.MESH_FILE).exists()


def test_down_where_the_process_is_dead_forgets_the_mesh(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    note(tmp_path, "http://h:1", process.pid)
    app.down(tmp_path, None)
    assert not (tmp_path / app.MESH_FILE).exists()


def test_down_tells_the_controller_of_a_mesh_that_nobody_holds(mesh, tmp_path, monkeypatch):
    monkeypatch.setenv("MESHSERVE_API_KEY", "k")
    mesh.answers["/mesh/v1/drain"] = (200, '{"draining": true}')
    note(tmp_path, mesh.endpoint)
    app.down(tmp_path, None)
    assert mesh.asked[0] == ("/mesh/v1/drain", "Bearer k", None)
    assert not (tmp_path / app.MESH_FILE).exists()


def test_down_of_another_mesh_leaves_ours_alone(mesh, tmp_path):
    mesh.answers["/mesh/v1/drain"] = (200, '{"draining": true}')
    note(tmp_path, "http://127.0.0.1:1", os.getpid())
    app.down(tmp_path, mesh.endpoint)
    assert app._noted(tmp_path)["pid"] == os.getpid()


def test_down_says_why_it_was_refused(mesh, tmp_path):
    mesh.answers["/mesh/v1/drain"] = (401, '{"error": "no credentials"}')
    note(tmp_path, mesh.endpoint)
    with pytest.raises(errors.MeshError, match="no credentials"):
        app.down(tmp_path, None)
    assert (tmp_path / app.MESH_FILE).exists()


def test_down_where_nothing_was_started(tmp_path):
    with pytest.raises(errors.Unavailable, match="no mesh was started"):
        app.down(tmp_path, None)


# An LLM's parts


@pytest.mark.parametrize(
    ("uri", "there"),
    [
        ("/models/tiny", "/models/tiny"),
        ("hf://org/tiny", "org/tiny"),
        ("HF://org/tiny", "org/tiny"),
    ],
)
async def test_weights_that_nobody_need_fetch(uri, there):
    assert await app._weights(lambda: pytest.fail("no store is needed"), uri) == there


async def test_weights_from_elsewhere_are_fetched_and_held(tmp_path):
    (tmp_path / "tiny.bin").write_text("weights")
    kept = artifact_store.ArtifactStore(str(tmp_path / "cache"), 1 << 20, 1 << 20)
    found = Path(await app._weights(lambda: kept, f"file://{tmp_path}/tiny.bin"))
    assert found.is_relative_to(tmp_path / "cache")
    await kept.close()


async def test_an_llm_is_built_with_its_engine_and_adapters(tmp_path):
    spec = llm_spec.LlmSpec(
        "tiny", "/models/tiny", adapters=(llm_spec.Adapter("sql", "hf://org/sql"),)
    )
    made = await app.build_llm_server(
        str(tmp_path),
        app.CacheLimits("/none", 1, 1),
        model.ServerAddress("tiny/0", str(tmp_path)),
        spec,
        "mp",
    )
    assert (made.engine.__class__.__name__, made.spec) == ("VllmEngine", spec)
    assert made._order.model_path == "/models/tiny"
    assert made._order.adapter_paths == {"sql": "org/sql"}
    assert (tmp_path / "tiny-0.log").exists()


async def test_an_engine_that_does_not_exist_is_said_before_anything_is_fetched(tmp_path):
    spec = llm_spec.LlmSpec("tiny", "s3://bucket/tiny", runtime="vlm")
    with pytest.raises(errors.LoadFailed, match="engine 'vlm' does not exist; there are: vllm"):
        await app.build_llm_server(
            str(tmp_path),
            app.CacheLimits("/none", 1, 1),
            model.ServerAddress("tiny/0", str(tmp_path)),
            spec,
            "mp",
        )
