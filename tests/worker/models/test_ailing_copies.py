from __future__ import annotations

import asyncio

from meshserve.core.values import containment, model
from meshserve.worker.models import ailing_copies, run_watch

MIB = 1 << 20
A = model.ModelId("a")


class Runs:
    key = "k"

    def waiting(self) -> list[model.ModelId]:
        return []

    def sweep(self, now_s: float) -> bool:
        return now_s < 0


async def test_a_copy_is_told_by_the_names_that_it_had() -> None:
    names = [A]
    watch = run_watch.RunWatch()
    ailing = ailing_copies.AilingCopies(watch, 400 * MIB, lambda _: names)
    ends = [asyncio.get_running_loop().create_future() for _ in range(2)]
    for end in ends:
        watch.count_hung("k", end)
        ailing.note_hung("k")
        names.clear()
    (hung,) = ailing.hung()
    assert (hung.key, hung.ids, hung.runs, hung.total) == ("k", (A,), 2, 2)
    ends[0].set_result(None)
    await asyncio.sleep(0)
    (hung,) = ailing.hung()
    assert (hung.runs, hung.total, hung.oldest_s < 60) == (1, 2, True)


async def test_a_copy_that_ran_at_two_excesses_is_told_to_have_done_it_again() -> None:
    watch = run_watch.RunWatch()
    ailing = ailing_copies.AilingCopies(watch, 400 * MIB, lambda _: (A,))
    again = []
    for taken_bytes, is_loading in ((1, False), (600, True), (1, False), (600, False)) * 2:
        watch.add(Runs())
        watch.discard(next(iter(watch._running)))
        again += [ailing.note_memory(taken_bytes * MIB, is_loading=is_loading)]
    assert again == [*7 * [set()], {"k"}]
    assert ailing.hogs() == (containment.MemoryHog("k", (A,), 2, 600 * MIB, is_suspect=True),)
    assert (ailing.is_hog("k"), ailing.is_hog("l")) == (True, False)
