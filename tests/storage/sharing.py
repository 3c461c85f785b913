"""A process that fetches from a shared cache: `sharing.py CACHE SOURCES ROUNDS`.

Exits with 1 if an artifact has the wrong content.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from meshserve.storage import artifact_store, content

YOUNG_S = 1.0


async def fetch_any(cache: str, sources: list[Path], rounds: int) -> None:
    artifacts = artifact_store.ArtifactStore(cache, 40_000, 1 << 20, young_s=YOUNG_S, settle_s=0.0)
    for _ in range(rounds):
        source = random.choice(sources)
        artifact = await artifacts.fetch(str(source), "")
        assert content.digest(Path(artifact.path)) == artifact.digest == content.digest(source), (
            source
        )
    await artifacts.close()


if __name__ == "__main__":
    asyncio.run(fetch_any(sys.argv[1], sorted(Path(sys.argv[2]).iterdir()), int(sys.argv[3])))
