"""A working set of four times the budget under Zipf traffic."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.e2e import running
from tests.faults import traffic

pytestmark = [pytest.mark.edge, pytest.mark.slow, pytest.mark.timeout(300)]

BUDGET = 400 << 20
MODEL = 10 << 20
MODELS = 4 * BUDGET // MODEL
PER_S = 20
TIME_S = float(os.environ.get("MESHSERVE_MEMORY_TEST_S", "60"))


async def test_no_error_and_private_memory_stays_within_a_tenth_of_the_budget(
    tmp_path: Path,
) -> None:
    document = {
        "pools": {"default": {"workers": 1, "memory": BUDGET}},
        "models": traffic.models(tmp_path, MODELS, MODEL),
    }
    with running.mesh(document) as mesh:
        highest = 0
        async with traffic.flowing(mesh.listen, traffic.zipf(MODELS), PER_S) as flow:
            for _ in range(int(TIME_S / 0.2)):
                await asyncio.sleep(0.2)
                highest = max(
                    highest, *(private_bytes(worker["pid"]) for worker in mesh.workers().values())
                )
        workers = mesh.workers().values()
        assert flow.faults == []
        assert sum(worker["evictions"] for worker in workers) > MODELS
        assert highest <= BUDGET * 1.1, f"{highest / 2**20:.0f} MiB of {BUDGET / 2**20:.0f}"
        print(  # noqa: T201
            f"{flow.answered} answers, {sum(worker['evictions'] for worker in workers)} evictions, "
            f"at most {highest / 2**20:.0f} MiB"
        )  # pytest -s shows the figures


def private_bytes(pid: int) -> int:
    resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
    return (resident - shared) * os.sysconf("SC_PAGESIZE")
