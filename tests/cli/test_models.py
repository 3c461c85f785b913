from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import conftest, fake_mesh


def test_list_prints_a_table(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    done = run("models", "list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if "default" in line] == sorted(
        fake.models
    )


def test_list_asks_for_a_page(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    done = run(
        "models", "list", "--prefix", "d", "--limit", "1", "--after", "a", "--state", "ready"
    )
    assert fake.requests == [("GET", "/mesh/v1/models?prefix=d&state=ready&limit=1&after=a", None)]
    assert "digits" in done.stdout


def test_list_as_json_is_the_answer_of_the_mesh(
    fake: fake_mesh.FakeMesh, run: conftest.Run
) -> None:
    done = run("models", "list", "--json")
    assert json.loads(done.stdout) == fake.page({})


@pytest.mark.parametrize("verb", ["load", "unload", "pin", "unpin", "release"])
def test_verbs_for_one_model(fake: fake_mesh.FakeMesh, run: conftest.Run, verb: str) -> None:
    done = run("models", verb, "digits", "--version", "1", "--json")
    assert fake.requests == [("POST", f"/mesh/v1/models/digits/{verb}?version=1", None)]
    assert json.loads(done.stdout)["pinned"] == (verb != "unpin")


def test_show(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    assert "/models/digits.onnx" in run("models", "show", "digits").stdout
    assert fake.requests[0][:2] == ("GET", "/mesh/v1/models/digits")


def test_add_sends_the_given_keys_alone(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    done = run(
        "models",
        "add",
        "new",
        "s3://b/new",
        "--set",
        "pinned=true",
        "--set",
        "version=3",
        "--set",
        "aliases=[n]",
    )
    assert fake.requests == [
        (
            "PUT",
            "/mesh/v1/models/new",
            {"uri": "s3://b/new", "pinned": True, "version": "3", "aliases": ["n"]},
        )
    ]
    assert (done.exit_code, "s3://b/new" in done.stdout) == (0, True)


def test_add_makes_a_local_path_absolute(
    fake: fake_mesh.FakeMesh, run: conftest.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    run("models", "add", "new", "m.onnx")
    assert fake.requests[0][2]["uri"] == f"{tmp_path}/m.onnx"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("pined=true", "pined: unknown key; did you mean 'pinned'?"),
        ("pinned=perhaps", "pinned: expected true or false, got 'perhaps'"),
        ("pinned", "--set pinned: expected KEY=VALUE, such as pinned=true"),
        (
            "options=[",
            "--set options=[: the value is no YAML; put text with special characters in quotes",
        ),
    ],
)
def test_add_refuses_a_wrong_setting(
    fake: fake_mesh.FakeMesh, run: conftest.Run, setting: str, said: str
) -> None:
    done = run("models", "add", "new", "/m.onnx", "--set", setting)
    assert (done.exit_code, done.stderr.strip(), fake.requests) == (2, said, [])


def test_remove(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    done = run("models", "remove", "digits", "--version", "1")
    assert (done.stdout, "digits" in fake.models) == ("digits version 1 removed\n", False)


def test_remove_as_json(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    assert json.loads(run("models", "remove", "wine", "--json").stdout)["name"] == "wine"
    assert fake.requests == [("DELETE", "/mesh/v1/models/wine", None)]


@pytest.mark.usefixtures("fake")
def test_an_unknown_model_ends_with_1(run: conftest.Run) -> None:
    done = run("models", "show", "nobody")
    assert (done.exit_code, done.stdout, done.stderr) == (
        1,
        "",
        "error: model 'nobody' is not registered\n",
    )
