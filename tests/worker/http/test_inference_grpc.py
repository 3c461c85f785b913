from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.protocol import paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.worker.http import inference_grpc, inference_request, inference_service
from tests.worker import bench


@pytest.fixture
async def ask(hosting, shelf):
    """Calls a method by its name with a message, or with bytes."""
    host = hosting()
    bench.told(host, *bench.declared(bench.spec("doubled", shelf.put("doubled"))))
    methods = inference_grpc.methods(inference_service.InferenceService(host))

    async def asking(name, message, *headers):
        body = message if isinstance(message, bytes) else message.SerializeToString()
        path = paths.INFERENCE + name
        return await methods[path](
            inference_request.InferenceRequest("POST", path.encode(), headers, body)
        )

    return asking


async def test_each_method_answers(ask):
    assert pb.ModelReadyResponse.FromString(
        await ask("ModelReady", pb.ModelReadyRequest(name="doubled"))
    ).ready
    told = pb.ModelMetadataResponse.FromString(
        await ask("ModelMetadata", pb.ModelMetadataRequest(name="doubled"))
    )
    assert (told.name, [each.name for each in told.outputs]) == ("doubled", ["y"])
    config = pb.ModelConfigResponse.FromString(
        await ask("ModelConfig", pb.ModelConfigRequest(name="doubled"))
    ).config
    assert (config.name, config.max_batch_size) == ("doubled", 256)
    answer = pb.ModelInferResponse.FromString(await ask("ModelInfer", bench.infer()))
    assert len(answer.raw_output_contents[0]) == 8
    counted = pb.ModelStatisticsResponse.FromString(
        await ask("ModelStatistics", pb.ModelStatisticsRequest(name="doubled"))
    )
    assert counted.model_stats[0].inference_stats.success.count == 1


async def test_metadata_wins_over_the_message(ask):
    named = (b"mm-model-id", b"doubled")
    assert pb.ModelReadyResponse.FromString(
        await ask("ModelReady", pb.ModelReadyRequest(name="nobody"), named)
    ).ready
    answer = pb.ModelInferResponse.FromString(
        await ask("ModelInfer", bench.infer("nobody", version="9"), named)
    )
    assert (answer.model_name, answer.model_version) == ("doubled", "1")


@pytest.mark.parametrize(
    "name", ["ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"]
)
async def test_garbage_is_refused(ask, name):
    with pytest.raises(errors.InvalidRequest, match="the body is not a Model"):
        await ask(name, b"\xff\xff")
