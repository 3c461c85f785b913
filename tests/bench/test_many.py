from __future__ import annotations

from bench import many, thrash, traffic


def test_requests_are_told_apart_by_whether_the_model_was_there() -> None:
    asked = [traffic.Asked(number % 8, 1.0 + number, "") for number in range(40)]
    lines = many.summarise(
        thrash.Thrashed(models=8, resident=4, requests_per_s=40.0, evictions=7, asked=asked)
    )
    assert [claim.is_reached for claim in lines.claims] == [True]
    assert "8 models, 4 fit" in lines.tables[0].title
    assert sum(int(row[1]) for row in lines.tables[0].rows[:1]) == 40


def test_a_failure_is_no_figure_of_ours_to_be_proud_of() -> None:
    asked = [traffic.Asked(0, 1.0, ""), traffic.Asked(1, 1.0, "UNAVAILABLE: gone")]
    lines = many.summarise(
        thrash.Thrashed(models=2, resident=1, requests_per_s=2.0, evictions=0, asked=asked)
    )
    assert [claim.is_reached for claim in lines.claims] == [False]
