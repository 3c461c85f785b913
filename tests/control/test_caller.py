from __future__ import annotations

import asyncio

from meshserve.control import caller


async def test_each_call_has_its_own_name() -> None:
    both_are_in = asyncio.Barrier(2)

    async def call(client: str) -> str:
        with caller.named(client):
            await both_are_in.wait()
            return caller.name()

    assert list(await asyncio.gather(call("ops"), call("shop"))) == ["ops", "shop"]
    assert caller.name() == ""
