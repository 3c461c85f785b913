from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from bench import demo, free_ports, samples

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("over_grpc", "over_rest", "is_equal"),
    [(0.5, 0.5, True), (0.5 + 1e-9, 0.5, True), (0.51, 0.5, False), (0.5, 0.49, False)],
)
def test_scores_are_equal_only_over_both_protocols(
    over_grpc: Any, over_rest: Any, is_equal: Any
) -> None:
    assert demo.Compared(samples.SAMPLES[0], 10, 0.5, over_grpc, over_rest).is_equal() is is_equal


def run(*arguments: Any) -> Any:
    command = [sys.executable, "-m", "bench.demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def quickstart(folder: Any) -> Any:
    """The quick start as it is, but for its port and its models' folder."""
    document = yaml.safe_load(demo.QUICKSTART.read_text())
    document["gateway"]["listen"] = f"127.0.0.1:{free_ports.free_port()}"
    for entry in document["models"]:
        entry["uri"] = str((demo.QUICKSTART.parent / entry["uri"]).resolve()).replace(
            str(ROOT / "models"), str(folder)
        )
    path = folder / "quickstart.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_trains_serves_compares_and_ends(tmp_path: Path) -> None:
    place = ("--models", tmp_path, "--config", quickstart(tmp_path))
    trained = run(*place, "train")
    assert trained.returncode == 0, trained.stderr
    done = run(*place, "serve", "--once")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [
        line.split()
        for line in done.stdout.splitlines()
        if line.split()[:1] and line.split()[0] in {s.name for s in samples.SAMPLES}
    ]
    assert [(row[0], row[-1], len(set(row[3:6]))) for row in rows] == [
        (sample.name, "yes", 1) for sample in samples.SAMPLES
    ]
    assert "curl" in done.stdout


def test_a_taken_port_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "heldout.npz").touch()
    path = quickstart(tmp_path)
    for entry in yaml.safe_load(path.read_text())["models"]:
        Path(entry["uri"]).parent.mkdir(exist_ok=True)
        Path(entry["uri"]).touch()
    with socket.socket() as other:
        host, _, port = yaml.safe_load(path.read_text())["gateway"]["listen"].rpartition(":")
        other.bind((host, int(port)))
        other.listen()
        assert demo.serve(Console(), demo.Place(tmp_path, path), once=True) == 1
    assert "is taken" in capsys.readouterr().out
