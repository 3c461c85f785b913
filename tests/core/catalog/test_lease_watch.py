from __future__ import annotations

import pytest

from meshserve.core.catalog import lease_watch
from meshserve.core.values import registry_contents

Lease = registry_contents.WriteLease
FREE, ALIVE, SILENT = lease_watch.Verdict
LONG_S = lease_watch.SILENCE_S
OTHER = Lease("other", "the other mesh", 3, 10)
BEATEN = Lease("other", "the other mesh", 3, 11)
TAKEN = Lease("third", "a third mesh", 4, 12)


@pytest.mark.parametrize(
    ("looks", "verdicts"),
    [
        ([(0.0, Lease())], [FREE]),
        ([(0.0, Lease("", "", 7, 90))], [FREE]),
        ([(0.0, Lease("mine", "this mesh", 3, 10))], [FREE]),
        ([(0.0, OTHER), (LONG_S, OTHER)], [SILENT, FREE]),
        ([(0.0, OTHER), (LONG_S - 0.1, OTHER)], [SILENT, SILENT]),
        ([(0.0, OTHER), (1.0, BEATEN)], [SILENT, ALIVE]),
        ([(0.0, OTHER), (1.0, BEATEN), (LONG_S, BEATEN)], [SILENT, ALIVE, SILENT]),
        ([(0.0, OTHER), (1.0, BEATEN), (1.0 + LONG_S, BEATEN)], [SILENT, ALIVE, FREE]),
        # However late the second look is: a change is a sign of life.
        ([(0.0, OTHER), (9 * LONG_S, BEATEN)], [SILENT, ALIVE]),
        ([(0.0, OTHER), (LONG_S, TAKEN)], [SILENT, ALIVE]),
        ([(0.0, OTHER), (1.0, Lease("", "", 3, 11))], [SILENT, FREE]),
    ],
)
def test_a_lease_is_free_when_its_holder_has_left_or_gives_no_sign_of_life(
    looks: list[tuple[float, Lease]], verdicts: list[lease_watch.Verdict]
) -> None:
    watch = lease_watch.LeaseWatch("mine")
    assert [watch.look(lease, 100.0 + at_s) for at_s, lease in looks] == verdicts


def test_a_holder_has_time_for_several_beats() -> None:
    assert lease_watch.SILENCE_S >= 5 * lease_watch.BEAT_S
