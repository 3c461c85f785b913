from __future__ import annotations

from pathlib import Path

import pytest

from bench import density, families, filling, program, systems

GIB = 1 << 30
ONE = filling.Filled(
    resident=100,
    is_full=False,
    registered=100_000,
    process_bytes=GIB // 2,
    registered_bytes_each=700.0,
    private_bytes_each=65536.0,
    mapped_bytes_each=0.0,
    load_ms=(1.0, 2.0),
)
PLAN = density.Plan({families.TINY.name: 5}, (1, 2), 20, (1, 2))


def test_what_fits_is_reckoned_and_marked() -> None:
    beside = density.Peer(GIB / 2, 131072.0, 0.8)
    measured = density.summarise(
        PLAN, {families.TINY.name: {1: ONE, 2: ONE}}, beside, {}, is_quick=False
    )
    (table,) = measured.tables
    assert table.rows[0][:3] == (families.TINY.name, "≈ 8,192", "≈ 24,576")
    assert table.rows[1][:3] == (f"{families.TINY.name}: {systems.MLSERVER}", "≈ 4,096", "≈ 12,288")
    assert [claim.is_reached for claim in measured.claims] == [False, True]


def test_the_quick_claim_is_about_what_one_takes() -> None:
    measured = density.summarise(
        density.QUICK,
        {families.TINY.name: {1: ONE}},
        None,
        {"MLServer": "not installed"},
        is_quick=True,
    )
    assert [(claim.ours, claim.is_reached) for claim in measured.claims] == [(65536.0, True)]
    assert measured.tables[0].missing == {"MLServer": "not installed"}


@pytest.mark.edge
def test_a_worker_is_filled_in_a_process_of_its_own(tmp_path: Path) -> None:
    with density.write_family(families.TINY, tmp_path / "family", 5) as place:
        assert density.fill_worker("tiny", place, 1, 20).resident == 5
        (place / "rows.npy").unlink()
        with pytest.raises(program.WrongAnswer, match=r"tiny in 1 GiB: .*rows\.npy"):
            density.fill_worker("tiny", place, 1, 20)
    assert not (tmp_path / "family").exists()
