from __future__ import annotations

from pathlib import Path

import pytest

from meshserve.cli import log_commands
from tests.cli import conftest

FIRST = "2026-11-28 10:00:00,000 INFO stdout [iris 3 a]: first"
SECOND = "2026-11-28 10:00:01,000 INFO stdout [digits 1 b]: second"
THIRD = "2026-11-28 10:00:02,000 WARNING meshserve.control: iris:3 is gone\n    more of it"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "default-0.log").write_text(f"{FIRST}\n{SECOND}\n")
    (logs / "controller.log").write_text(f"{THIRD}\n")
    (logs / "ray").mkdir()
    (logs / "ray" / "raylet.out").write_text("lost a node\n")
    (logs / "up.log").write_text("curl …/iris\n\n")
    return logs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["curl …/iris", "first", "second", "more of it"]),
        (("iris",), ["first", "more of it"]),
        (("default",), ["first", "second"]),
        (("controller",), ["more of it"]),
        (("ray",), ["lost a node"]),
        (("--since", "2026-11-28T10:00:01"), ["second", "more of it"]),
        (("-n", "1"), ["more of it"]),
        (("iris", "-n", "0"), []),
    ],
)
@pytest.mark.usefixtures("folder")
def test_entries_are_shown_in_order(
    run: conftest.Run, arguments: tuple[str, ...], words: list[str]
) -> None:
    done = run("logs", *arguments)
    assert done.exit_code == 0
    shown = [line for line in done.stdout.splitlines() if "is gone" not in line]
    assert [line.endswith(word) for line, word in zip(shown, words, strict=True)] == [
        True for _ in words
    ]


@pytest.mark.usefixtures("folder")
def test_what_nothing_tells_of_is_an_error(run: conftest.Run) -> None:
    done = run("logs", "unknown")
    assert done.exit_code == 1
    assert "tells of 'unknown'; there are logs of: controller, default-0, up" in done.output


def test_without_a_mesh_there_is_no_folder(
    tmp_path: Path, run: conftest.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path))
    assert "no mesh has logged here" in run("logs").output
    assert run("logs", "--since", "soon").exit_code == 1


def test_a_reader_goes_on_where_a_file_has_grown_or_was_emptied(folder: Path) -> None:
    reader = log_commands.LogReader(folder, "")
    assert len(list(reader.read_old(0.0))) == 4
    log = folder / "default-0.log"
    with log.open("a") as writer:
        writer.write(f"{FIRST}\nhalf")
    (folder / "new-0.log").write_text("native\n")
    assert [entry.text for entry in reader.read_new()] == [FIRST, "native"]
    assert list(reader.read_new()) == []
    log.write_text(f"{SECOND}\n")
    assert [entry.text for entry in reader.read_new()] == [SECOND]


def test_older_files_are_read_as_far_back_as_is_asked(folder: Path) -> None:
    for number in (1, 2):
        (folder / f"controller.log.{number}").write_text(f"{SECOND}\n")
    count = len(list(log_commands.LogReader(folder, "controller").read_old(0.0)))
    assert count == 2
    assert len(list(log_commands.LogReader(folder, "controller").read_old(1.0))) == 3
