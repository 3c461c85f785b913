"""What the tables show, drawn on paper of a given width."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from meshserve.cli import tables
from tests.cli import fake_mesh


def drawn(view: Any, width: int = 140) -> Any:
    text = io.StringIO()
    paper = Console(file=text, width=width, markup=False, highlight=False)
    paper.print(view)
    return text.getvalue()


def status(*workers: Any, **changes: Any) -> Any:
    answer = {
        "version": "0.1.0",
        "state": "ready",
        "endpoint": "http://host:8080",
        "pools": [{"name": "default", "device": "cpu", "workers": list(workers)}],
        "gateways": [
            {
                "node": "node-1",
                "pid": 99,
                "envoy_pid": 100,
                "state": "ready",
                "listen": "127.0.0.1:8080",
                "restarts": 0,
                "native": "off",
            }
        ],
        "models": {"registered": 5, "resident": 2, "loading": 1, "failed": 1},
        "controller": {"pid": 77, "restarts": 0},
    }
    return answer | changes


def line_with(text: Any, *words: Any) -> Any:
    return next(line for line in text.splitlines() if all(word in line for word in words))


def test_status_has_state_models_and_gateways() -> None:
    text = drawn(tables.status(status(fake_mesh.worker("default-0")), "http://asked", 140))
    assert text.startswith("meshserve 0.1.0 · ready · http://host:8080\n")
    assert "models 5 registered · 2 resident · 1 loading · 1 failed" in text
    assert line_with(text, "node-1", "127.0.0.1:8080")


def test_status_names_models_in_quarantine() -> None:
    held = {"model": "digits", "version": "2", "reason": "it was killed by SIGSEGV"}
    text = drawn(tables.status(status(quarantined=[held]), "", 140))
    assert line_with(text, "model digits:2", "it was killed by SIGSEGV")


def test_the_id_of_a_node_is_cut() -> None:
    gateway = {
        "node": "0123456789ab" + "f" * 44,
        "pid": 99,
        "envoy_pid": 100,
        "state": "ready",
        "listen": "h:1",
        "restarts": 0,
        "native": "off: no C compiler is here",
    }
    text = drawn(tables.status(status(gateways=[gateway]), "", 140))
    assert "0123456789ab " in line_with(text, "h:1")


def test_status_has_the_reason_of_a_lost_worker() -> None:
    lost = fake_mesh.worker("default-1", state="lost", reason="killed by\nsignal 9")
    text = drawn(tables.status(status(fake_mesh.worker("default-0"), lost), "", 140))
    assert text.splitlines()[-1] == "default-1 killed by signal 9"


def test_status_names_models_on_several_workers() -> None:
    text = drawn(
        tables.status(
            status(spread=[{"model": "digits", "workers": ["default-1", "default-0"]}]), "", 140
        )
    )
    assert line_with(text, "busy") == "busy   digits is on default-1, default-0"


def test_status_names_models_that_are_joined_no_more() -> None:
    stop = {"model": "m", "version": "7", "worker": "default-0", "reason": "output 'y' differs"}
    text = drawn(tables.status(status(joins_stopped=[stop]), "", 140))
    shown = line_with(text, "model m:7")
    assert shown == "model m:7 on default-0: requests are joined no more: output 'y' differs"


def test_aliases_whose_version_went_away_are_told() -> None:
    dangling = {"alias": "prod", "reason": "alias 'prod' means version '3', which went away"}
    text = drawn(tables.status(status(aliases_dangling=[dangling]), "", 140))
    assert line_with(text, "alias prod") == f"alias prod {dangling['reason']}"
    shown = drawn(tables.model(fake_mesh.model("m", aliases_dangling=["prod"])))
    assert line_with(shown, "dangling").split() == ["dangling", "aliases", "prod"]


def test_models_whose_runs_do_not_end_are_told() -> None:
    hung = {"model": "m", "version": "7", "worker": "default-0", "runs": 3}
    text = drawn(tables.status(status(hung=[hung]), "", 140))
    assert line_with(text, "model m:7") == "model m:7 on default-0: 3 of its runs do not end"
    shown = drawn(tables.model(fake_mesh.model("m", hung_runs=3)))
    assert line_with(shown, "hung runs").split() == ["hung", "runs", "3"]
    assert "hung" not in drawn(tables.model(fake_mesh.model("m")))


def test_models_that_ran_when_memory_was_over_its_budget_are_told() -> None:
    hog = {"model": "m", "version": "7", "worker": "default-0", "times": 2, "peak_bytes": 2 << 30}
    text = drawn(tables.status(status(hogs=[hog]), "", 140))
    words = "ran 2 times on default-0 while it took more memory than its budget, 2 GiB"
    assert line_with(text, "model m:7") == f"model m:7 {words}"


def test_a_starting_mesh_shows_the_asked_endpoint() -> None:
    assert "http://asked" in drawn(
        tables.status(status(endpoint="", state="starting"), "http://asked", 140)
    )


def test_a_worker_in_a_line() -> None:
    line = line_with(
        drawn(tables.status(status(fake_mesh.worker("default-0", loading=2)), "", 140)), "default-0"
    )
    for word in ("ready", "node-1", "cpu", "3 +2", "312 MiB + 88 MiB / 1 GiB", "120,000", "99.9 %"):
        assert word in line


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("gpu_bytes", [0, 8 << 30])
def test_tables_fit_their_width_with_whole_figures(width: int, gpu_bytes: int) -> None:
    worker = fake_mesh.worker("default-0", budget_bytes={"host": 1 << 30, "gpu": gpu_bytes})
    text = drawn(tables.status(status(worker), "", width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "312 MiB + 88 MiB / 1 GiB" in text
    assert ("0 B / 8 GiB" in text) == bool(gpu_bytes)
    assert "…" not in text


def test_a_narrow_table_drops_columns() -> None:
    answer = status(fake_mesh.worker("default-0"))
    narrow, wide = (drawn(tables.status(answer, "", width), width) for width in (80, 140))
    assert ("restarts" in line_with(narrow, "worker"), "restarts" in line_with(wide, "worker")) == (
        False,
        True,
    )
    assert "hits" in line_with(narrow, "worker")


@pytest.mark.parametrize(
    ("used", "budget", "bar"), [(50, 100, "━" * 2), (200, 100, "━" * 4), (5, 0, "–")]
)
def test_memory_bars(used: int, budget: int, bar: Any) -> None:
    assert drawn(tables.memory(used, budget, 4)).startswith(bar)


def test_models_in_lines() -> None:
    text = drawn(tables.models({"models": list(fake_mesh.MODELS), "next": None}, 140))
    line = line_with(text, "digits", "numbers, mnist")
    for word in ("ready", "onnx", "default-0", "87.9 KiB", "81,234", "yes"):
        assert word in line
    assert "There are more" not in text


def test_markup_in_names_is_printed_and_reasons_are_one_line() -> None:
    text = drawn(tables.models({"models": list(fake_mesh.MODELS), "next": None}, 80), 80)
    assert "churn[beta] no such key: s3://bucket/churn" in text.splitlines()


def test_a_further_page_is_announced() -> None:
    assert "There are more: --after wine" in drawn(
        tables.models({"models": [fake_mesh.model("wine")], "next": "wine"}, 80)
    )


def test_no_models() -> None:
    assert drawn(tables.models({"models": [], "next": None}, 80)) == "no models\n"


def test_a_long_name_takes_several_lines_and_is_whole() -> None:
    name = "a-name-" * 12
    text = drawn(tables.models({"models": [fake_mesh.model(name)], "next": None}, 80), 80)
    assert "".join(line[:20].strip().split(" ")[0] for line in text.splitlines()[2:]) == name


@pytest.mark.parametrize(
    ("by_device", "text"),
    [
        ({"host": 0, "gpu": 0}, "–"),
        (None, "–"),
        ({"host": 1024, "gpu": 0}, "1 KiB"),
        ({"host": 1024, "gpu": 2 << 30}, "1 KiB + 2 GiB gpu"),
    ],
)
def test_footprints(by_device: Any, text: str) -> None:
    assert tables.footprint(by_device) == text


def test_one_model() -> None:
    lines = drawn(tables.model(fake_mesh.model("digits", aliases=["mnist"]))).splitlines()
    titles = ["name", "version", "versions", "newest", "state"]
    assert [line.split()[0] for line in lines[:5]] == titles
    assert line_with("\n".join(lines), "aliases", "mnist")
    assert not any(line.startswith(("reason", "joining")) for line in lines)


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("joined", "", "requests that wait together share runs"),
        ("never", "LSTM: rows are time", "no: LSTM: rows are time"),
        ("stopped", "output 'y' differs", "no more: output 'y' differs"),
    ],
)
def test_a_model_tells_whether_its_requests_share_runs(state: str, reason: str, words: str) -> None:
    shown = fake_mesh.model("m", joining={"state": state, "reason": reason})
    assert line_with(drawn(tables.model(shown)), "joining").split(maxsplit=1)[1] == words
