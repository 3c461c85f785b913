from __future__ import annotations

from meshserve.core.values import containment


def test_the_time_alone_outlasts_retries_and_doubles_up_to_an_hour() -> None:
    waits_s = [containment.PROBATION.wait_s(deaths) for deaths in (1, 2, 3, 20)]
    assert waits_s == [20.0, 40.0, 80.0, 3600.0]
