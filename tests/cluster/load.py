"""Steady traffic from a machine outside a mesh, through each of its gateways.

    python -m tests.cluster.load MODELS PER_S LISTEN…

Flows until its input is closed, then prints by gateway what `traffic.Traffic` has counted, as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import sys

from tests.faults import traffic


async def main(models: int, per_s: float, listens: list[str]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        flows = {
            listen: await stack.enter_async_context(
                traffic.flowing(listen, traffic.zipf(models, seed), per_s / len(listens))
            )
            for seed, listen in enumerate(listens)
        }
        # Who has started this waits for the word: faults before the first request show nothing.
        sys.stdout.write("flowing\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
    counted = {listen: dataclasses.asdict(flow) for listen, flow in flows.items()}
    sys.stdout.write(json.dumps(counted))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
