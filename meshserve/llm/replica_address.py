"""Where a replica of an LLM is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import xxhash

from meshserve.core.interfaces import llm_engine


@dataclass(frozen=True, slots=True)
class ReplicaAddress:
    """One replica's name and surroundings. `run_dir` is this node's alone and holds its socket; others reach it on `host`.

    `backend` says how the engine spreads over several GPUs: `mp` on one node, `ray` over several.
    """

    replica_id: str
    run_dir: str
    node: str = "local"
    host: str = "127.0.0.1"
    backend: llm_engine.Backend = "mp"

    @property
    def socket_path(self) -> str:
        """The Unix socket that peers on this node use. The system bounds its length, so it has a digest of the replica's id."""
        return str(
            Path(self.run_dir) / f"llm-{xxhash.xxh64_hexdigest(self.replica_id.encode())}.sock"
        )
