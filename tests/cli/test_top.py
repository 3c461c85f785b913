from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
from rich.console import Console

from meshserve.cli import top
from tests.cli import conftest, fake_mesh


def sample(at_s: Any, requests: Any = 0, **changes: Any) -> Any:
    fake_worker = fake_mesh.worker(
        "default-0", requests=100 + requests, hits=90 + requests // 2, misses=requests // 2
    )
    status: Any = {
        "state": "ready",
        "endpoint": "http://host:80",
        "pools": [{"name": "default", "device": "cpu", "workers": [fake_worker]}],
        "models": {"registered": 5000, "resident": 1000, "loading": 0, "failed": 3},
        "llms": [],
    }
    return top.Sample(
        at_s,
        status | changes,
        (fake_mesh.model("hot", requests=100 + requests), fake_mesh.model("cold", requests=5)),
    )


def drawn(before: Any, after: Any, width: int = 140, models_max: Any = 10) -> Any:
    text = io.StringIO()
    paper = Console(file=text, width=width, markup=False, highlight=False)
    paper.print(top.view(before, after, width, models_max))
    return text.getvalue().splitlines()


def test_totals_are_those_between_two_samples() -> None:
    lines = drawn(sample(10.0), sample(12.0, requests=800))
    assert (
        lines[0]
        == "meshserve top http://host:80 · ready · 1,000 of 5,000 models resident · 3 failed"
    )
    assert lines[1] == "400 req/s · hit rate 50.0 % · 0 loads/s · 0 failures/s · 7 in flight"


def test_workers_and_the_hottest_models_in_order() -> None:
    lines = drawn(sample(0.0), sample(1.0, requests=40))
    worker = next(line for line in lines if line.startswith("default-0"))
    assert worker.split()[:5] == ["default-0", "ready", "40", "50.0", "%"]
    assert [line.split()[0] for line in lines[-2:]] == ["hot", "cold"]


def test_models_are_limited_to_the_room() -> None:
    assert drawn(sample(0.0), sample(1.0), models_max=1)[-1].startswith("hot")


def test_no_model_is_resident() -> None:
    assert (
        drawn(sample(0.0)._replace(models=()), sample(1.0)._replace(models=()))[-1]
        == "no model is resident"
    )


def test_llms_stand_between_workers_and_models() -> None:
    llms = [
        fake_mesh.llm("tiny", fake_mesh.replica("tiny/0")),
        fake_mesh.llm("off", reason="no GPU"),
    ]
    lines = drawn(sample(0.0, llms=llms), sample(1.0, llms=llms))
    places = [
        next(place for place, line in enumerate(lines) if line.startswith(word))
        for word in ("default-0", "tiny", "off", "hot")
    ]
    assert places == sorted(places)
    assert (
        top._other_lines(cast("Any", {"pools": [], "llms": llms}))
        == top.FIXED_LINES + top.FIXED_LLM_LINES + 3
    )


@pytest.mark.parametrize("width", [80, 140])
def test_the_view_fits_its_width(width: int) -> None:
    assert max(map(len, drawn(sample(0.0), sample(1.0), width))) <= width


def test_once(fake: fake_mesh.FakeMesh, run: conftest.Run) -> None:
    fake.growth = 50
    done = run("top", "--once", "--interval", "0.1")
    assert done.exit_code == 0
    assert "digits" in done.stdout
    assert " 0 req/s" not in done.stdout.splitlines()[1]


def test_an_unreachable_mesh_ends_with_1(
    run: conftest.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSERVE_ENDPOINT", "127.0.0.1:1")
    assert run("top", "--once").exit_code == 1


def read_until(near: Any, word: Any, timeout_s: Any = 30.0) -> None:
    seen = b""
    end_s = time.monotonic() + timeout_s
    while word not in seen:
        assert time.monotonic() < end_s, seen
        if select.select([near], [], [], 0.05)[0]:
            seen += os.read(near, 65536)


@pytest.fixture
def watching(fake: fake_mesh.FakeMesh) -> Iterator[Any]:
    """`meshserve top` on a terminal of its own, and the far end of that terminal."""
    near, far = pty.openpty()
    command = [
        sys.executable,
        "-c",
        conftest.PROGRAM,
        "top",
        "--interval",
        "0.1",
        "--endpoint",
        fake.endpoint,
    ]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(
        command, stdin=far, stdout=far, stderr=far, env=environ, start_new_session=True
    ) as process:
        os.close(far)
        yield near, process
        process.kill()
    os.close(near)


@pytest.mark.edge
@pytest.mark.parametrize("ending", ["q", "SIGINT"])
def test_top_refreshes_until_it_is_ended(watching: Any, ending: str) -> None:
    near, process = watching
    read_until(near, b"req/s")
    if ending == "q":
        os.write(near, b"q")
    else:
        process.send_signal(2)
    assert process.wait(30) == 0


@pytest.mark.edge
def test_top_goes_on_when_the_mesh_answers_again(watching: Any, fake: fake_mesh.FakeMesh) -> None:
    near, _ = watching
    read_until(near, b"digits")
    fake.refusal = 503, "no healthy upstream"
    read_until(near, b"no answer")
    fake.refusal = None
    read_until(near, b"digits")
