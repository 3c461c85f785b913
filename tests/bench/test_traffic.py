from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
from hypothesis import given
from hypothesis import strategies as st

from bench import tiny, traffic
from meshserve.protocol.pb import inference_pb2 as pb


class Stub:
    """Answers as the tiny models do, except those in `wrong`. `busy` counts requests in flight."""

    def __init__(self, wrong: Any = (), took_s: float = 0.0) -> None:
        self.wrong = wrong
        self.took_s = took_s
        self.busy = self.most_busy = 0

    async def ModelInfer(self, request: Any, timeout: Any) -> Any:  # noqa: ASYNC109, ARG002, N802 - gRPC's
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(self.took_s)
        self.busy -= 1
        number = int(request.model_name.removeprefix("tiny-"))
        y = tiny.answer(number + (number in self.wrong), traffic.X)
        return pb.ModelInferResponse(raw_output_contents=[y.tobytes()])


class Refusing:
    async def ModelInfer(self, request: Any, timeout: Any) -> None:  # noqa: ASYNC109, ARG002, N802 - gRPC's
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, None, None, "nobody is there")


@given(st.lists(st.integers(0, 6), max_size=40))
def test_reuse_distance_is_the_number_of_other_models_asked_since(models: Any) -> None:
    expected = []
    for place, model in enumerate(models):
        earlier = [i for i in range(place) if models[i] == model]
        expected.append(len(set(models[earlier[-1] + 1 : place])) if earlier else -1)
    assert traffic.reuse_distances(models) == expected


def test_requests_are_cold_only_where_the_copy_was_certainly_evicted() -> None:
    order = [0, 0, *range(1, 6), 0]  # four copies fit into nobody's memory twice over
    asked = [traffic.Asked(model, float(place)) for place, model in enumerate(order)]
    kinds = traffic.kinds(asked, resident=2)
    assert list(kinds["resident"]) == [1.0]
    assert list(kinds["evicted before"]) == [7.0]
    assert len(kinds["first request"]) == 6


async def test_wrong_answers_and_failures_are_told_with_the_models_name() -> None:
    wrong = await traffic.Callers([Stub(wrong=(1,))], 3).each([0, 1, 2], 2)
    refused = await traffic.Callers([Refusing()], 1).each([0], 1)
    assert traffic.failures(wrong) == ["tiny-00001: wrong answer"]
    assert traffic.failures(refused) == ["tiny-00000: UNAVAILABLE: nobody is there"]


async def test_each_asks_all_and_no_more_than_so_many_at_a_time() -> None:
    stub = Stub()
    asked = await traffic.Callers([stub], 9).each(range(9), 3)
    assert sorted(request.model for request in asked) == list(range(9))
    assert stub.most_busy == 3


async def test_a_closed_loop_asks_only_models_below_its_count() -> None:
    asked = await traffic.Callers([Stub(took_s=0.001)], 5).closed(3, 0.05, 2)
    assert {request.model for request in asked} <= {0, 1, 2}


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    stub = Stub(took_s=0.2)
    asked = await traffic.Callers([stub], 1).open([0] * 10, 1000.0)
    assert (len(asked), stub.most_busy) == (10, 10)


async def test_time_counts_from_when_a_request_was_due() -> None:
    asked = await traffic.Callers([Stub()], 1).ask(0, due_s=time.perf_counter() - 1.0)
    assert asked.took_ms > 1000


def test_a_repository_has_one_folder_a_model(tmp_path: Path) -> None:
    traffic.write_repository(tmp_path, 2)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.onnx")) == [
        "tiny-00000/1/model.onnx",
        "tiny-00001/1/model.onnx",
    ]


async def test_a_mesh_that_is_not_there_is_a_fault() -> None:
    async with traffic.callers("127.0.0.1:1", 1) as callers:
        (asked,) = await callers.each([0], 1)
    assert "UNAVAILABLE" in asked.fault
