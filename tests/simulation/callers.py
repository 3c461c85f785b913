"""Requests for predictions, routed and repeated as Envoy does it."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np

from meshserve.core.processes import hash_ring
from meshserve.core.values import snapshots
from meshserve.protocol import http_protocol
from meshserve.protocol.pb import inference_pb2 as pb
from tests.simulation import cluster, simulated_loop

INFER = b"/inference.GRPCInferenceService/ModelInfer"
RETRIES = 5
UNHEALTHY_S = 1.5
"""How long after it has stopped answering Envoy's health checks sort a worker out."""

UNAVAILABLE = 14
DEADLINE_EXCEEDED = 4


@dataclass(frozen=True)
class Outcome:
    """What a caller got: `code` is gRPC's, 0 with an answer, which `pid` has given."""

    code: int
    message: str = ""
    content: int = 0
    version: str = ""
    echo: float = 0.0
    pid: int = 0


@functools.lru_cache(maxsize=64)
def _ring(worker_ids: tuple[str, ...]) -> hash_ring.HashRing:
    return hash_ring.HashRing(worker_ids)


class Envoy:
    """The gateway of the one node."""

    def __init__(self, cluster_: cluster.SimulatedCluster, chance: random.Random) -> None:
        self._cluster = cluster_
        self._chance = chance
        self.silent_since_s: dict[int, float] = {}

    async def infer(self, name: str, version: str, value: float, timeout_s: float) -> Outcome:
        """Return what a client gets for one request."""
        loop = asyncio.get_running_loop()
        expires_s = loop.time() + timeout_s
        last = Outcome(UNAVAILABLE, "no healthy upstream")
        try:
            async with asyncio.timeout_at(expires_s + 0.05):
                tried: set[str] = set()
                for attempt in range(1, RETRIES + 2):
                    target = self._choose(name, tried)
                    if target is None:
                        return last
                    tried.add(target.worker_id)
                    left_s = max(0.001, expires_s - loop.time())
                    body = _request(name, version, value)
                    headers = (
                        (b"grpc-timeout", b"%dm" % max(1, int(left_s * 1000))),
                        (b"x-envoy-attempt-count", b"%d" % attempt),
                    )
                    last = await self._attempt(target, headers, body)
                    if last.code != UNAVAILABLE:
                        return last
                    await asyncio.sleep(self._chance.uniform(0.0, min(0.5, 0.025 * 2**attempt)))
        except TimeoutError:
            return Outcome(DEADLINE_EXCEEDED, "the gateway waited for too long")
        return last

    def _choose(self, name: str, tried: set[str]) -> snapshots.RingMember | None:
        """Return the next worker, in the order of the ring, of those that seem healthy."""
        snapshot = self._cluster.gateways.get(cluster.NODE)
        if snapshot is None:
            return None
        pool = snapshot.routes.get(name, snapshot.default_pool)
        members = {member.worker_id: member for member in snapshot.pools.get(pool, ())}
        healthy = tuple(sorted(id_ for id_, member in members.items() if self._is_well(member)))
        for id_ in self._in_order(snapshot, name, healthy):
            if id_ in members and id_ not in tried:
                return members[id_]
        # All were tried: Envoy goes round again.
        return members[healthy[0]] if healthy else None

    def _in_order(
        self, snapshot: snapshots.GatewaySnapshot, name: str, healthy: tuple[str, ...]
    ) -> Iterator[str]:
        for hot in snapshot.hot:
            if name in hot.names:
                hosts = [id_ for id_ in hot.worker_ids if id_ in healthy]
                yield from self._chance.sample(hosts, len(hosts))
        if healthy:
            yield from _ring(healthy).homes(name, len(healthy))

    def _is_well(self, member: snapshots.RingMember) -> bool:
        record = self._cluster.workers.get(member.worker_id)
        if not member.ready or record is None:
            return member.ready
        loop = asyncio.get_running_loop()
        pid = record.process.pid
        if not (record.process.is_stopped or record.is_cut_off):
            self.silent_since_s.pop(pid, None)
            return True
        return loop.time() - self.silent_since_s.setdefault(pid, loop.time()) < UNHEALTHY_S

    async def _attempt(
        self,
        target: snapshots.RingMember,
        headers: Sequence[http_protocol.Header],
        body: bytes,
    ) -> Outcome:
        await asyncio.sleep(0.0005)
        record = self._cluster.workers.get(target.worker_id)
        # All processes of one worker listen on the same socket, one after the other.
        if record is None or record.worker is None or not record.worker.is_listening:
            return Outcome(UNAVAILABLE, "connection refused")
        loop = simulated_loop.current()
        answer: asyncio.Future[Any] = loop.create_future()
        serving = loop.begin(record.process, _serve(record, headers, body, answer))
        try:
            await asyncio.wait([answer, record.lost], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # The connection is closed, and so the request's task is cancelled.
            loop.call_soon(serving.cancel, context=record.process.context())
            raise
        if not answer.done():
            return Outcome(UNAVAILABLE, "connection reset")
        return _outcome(answer.result(), record.process.pid)


async def _serve(
    record: cluster.WorkerProcess,
    headers: Sequence[http_protocol.Header],
    body: bytes,
    answer: asyncio.Future[Any],
) -> None:
    assert record.worker is not None
    while record.is_cut_off:  # noqa: ASYNC110 it stands for what gets lost and is sent again
        await asyncio.sleep(0.5)
    outcome = record.worker.app.handle("POST", INFER, headers, body)
    given = outcome if isinstance(outcome, tuple) else await outcome
    while record.is_cut_off:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    if not answer.done():
        answer.set_result(given)


def _request(name: str, version: str, value: float) -> bytes:
    array = np.array([[value]], np.float32)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=array.shape)
    message = pb.ModelInferRequest(
        model_name=name,
        model_version=version,
        inputs=[tensor],
        raw_input_contents=[array.tobytes()],
    )
    return message.SerializeToString()


def _outcome(answer: http_protocol.Answer, pid: int) -> Outcome:
    status, headers, body = answer
    fields = dict(headers)
    code = int(fields.get(b"x-mesh-grpc-status", b"0"))
    if status != 200:
        return Outcome(UNAVAILABLE, f"status {status}: {body[:200]!r}", pid=pid)
    if code:
        return Outcome(code, unquote(fields[b"x-mesh-grpc-message"].decode()), pid=pid)
    reply = pb.ModelInferResponse.FromString(body)
    echo, content = (bytes(raw) for raw in reply.raw_output_contents)
    return Outcome(
        0,
        content=int(np.frombuffer(content, np.int64)[0]),
        version=reply.model_version,
        echo=float(np.frombuffer(echo, np.float32)[0]),
        pid=pid,
    )
