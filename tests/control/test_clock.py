from __future__ import annotations

from meshserve.control import clock


async def test_time_goes_on_while_it_sleeps():
    real = clock.RealClock()
    before_s = real.now_s()
    await real.sleep(0.02)
    assert real.now_s() - before_s >= 0.015
