from __future__ import annotations

from meshserve.control import tallying
from meshserve.core.values import model_stats


def counted(rows, at_s):
    made = model_stats.ModelStats()
    made.answered(rows, 0.5, at_s)
    made.ran(rows, 0.25)
    return made


def test_what_two_workers_counted_is_added_up():
    whole = model_stats.ModelStats()
    for part in (counted(2, 100.0), counted(3, 50.0), counted(2, 10.0)):
        tallying.add(whole, part)
    assert (whole.rows, whole.last_ms) == (7, 100_000)
    assert whole.success == model_stats.DurationStat(3, 1.5)
    assert whole.batches == {
        2: model_stats.DurationStat(2, 0.5),
        3: model_stats.DurationStat(1, 0.25),
    }


def test_the_part_stays_as_it_was():
    part = counted(2, 1.0)
    whole = model_stats.ModelStats()
    tallying.add(whole, part)
    tallying.add(whole, part)
    assert part == counted(2, 1.0)
