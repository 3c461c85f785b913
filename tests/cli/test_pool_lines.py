from __future__ import annotations

from typing import Any, cast

from meshserve.cli import pool_lines
from meshserve.protocol import mesh_status


def drawn(**fields: Any) -> list[str]:
    pool = {
        "name": "small",
        "workers_min": 0,
        "workers_max": 4,
        "workers_wanted": 2,
        "reason": "its workers are busy",
        "held": 0,
        "workers": [{"state": "ready"}, {"state": "starting"}],
    }
    answer = cast("mesh_status.MeshStatus", {"pools": [{**pool, **fields}]})
    return [line.plain for line in pool_lines.lines(answer)]


def test_a_pool_that_follows_its_load_has_a_line() -> None:
    assert drawn() == ["pool   small: 1 of 2 workers, 0 to 4 · its workers are busy"]
    sleeping = drawn(workers=[], workers_wanted=1, reason="a request came", held=3)
    expected = "pool   small: 0 of 1 workers, 0 to 4 · a request came · 3 requests held"
    assert sleeping == [expected]


def test_a_pool_of_a_fixed_size_and_one_of_an_earlier_version_have_none() -> None:
    assert drawn(workers_min=4) == []
    old: Any = {"pools": [{"name": "small", "device": "cpu", "workers": []}]}
    assert list(pool_lines.lines(old)) == []
