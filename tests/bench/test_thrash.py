from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench import meshes, thrash


@pytest.mark.edge
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_four_times_as_many_as_fit_are_all_answered(tmp_path: Path) -> None:
    plan = thrash.Plan(models=1_000, memory="150MiB", seconds=1.0, in_flight=2)
    thrashed = thrash.run(Console(quiet=True), plan, tmp_path)
    assert thrashed.asked
    assert thrashed.models <= 1_000
    assert (tmp_path / "meshserve.log").exists()


def test_counters_are_read_once_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = iter(
        [{"requests": 1}, {"requests": 3}, {"requests": 4}, {"requests": 5}, {"requests": 5}]
    )
    monkeypatch.setattr(meshes, "totals", lambda _endpoint: next(seen))
    monkeypatch.setattr(meshes, "SETTLED_S", 0.0)

    class System:
        def wait_until(self, is_true: Any, _timeout_s: Any) -> None:
            while not is_true():
                pass

    system: Any = System()
    assert meshes.settled_totals(meshes.Mesh(system, "x"), 3) == {"requests": 5}
