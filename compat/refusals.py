"""What is refused: each kind is asked for as its peer's clients do, and the error's text is kept.

A refusal has a status of its own, and its text names what is not there.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from compat import cases, mesh, triton_control, triton_examples, triton_infer, world

PEER = triton_infer.PEER
SHARED = "docs/protocol/extension_shared_memory.md"
PAIR = {"INPUT0": triton_examples.A, "INPUT1": triton_examples.B}
REGION, REGION_BYTES = "region", 64


def _texts(*calls: Callable[[], object]) -> str:
    """Return the text that all calls are refused with; raise AssertionError if they differ."""
    texts = {triton_control.refused(call) for call in calls}
    assert len(texts) == 1, f"refused in several ways: {sorted(texts)}"
    return texts.pop()


@cases.refusal(PEER, "shared memory", SHARED)
def regions_of_shared_memory(asked: world.World) -> str:
    """Regions can't be registered."""
    return _texts(
        *(
            lambda client=client: client.register_system_shared_memory(
                REGION, "/region", REGION_BYTES
            )
            for client in (asked.http, asked.grpc)
        )
    )


@cases.refusal(PEER, "shared memory", "docs/protocol/extension_shared_memory.md, CUDA")
def regions_of_cuda(asked: world.World) -> str:
    """Regions of a GPU's memory neither."""
    return _texts(
        *(
            lambda client=client: client.register_cuda_shared_memory(
                REGION, b"aGFuZGxl", 0, REGION_BYTES
            )
            for client in (asked.http, asked.grpc)
        )
    )


@cases.refusal(PEER, "shared memory", "client/src/python/examples/simple_{http,grpc}_shm_client.py")
def tensors_in_shared_memory(asked: world.World) -> str:
    """A tensor that lies in a region is refused, never taken for empty."""

    def ask(protocol: str) -> object:
        inputs = world.given(protocol, PAIR)
        inputs[0].set_shared_memory(REGION, REGION_BYTES)
        return asked.triton(protocol).infer("simple", inputs)

    return _texts(lambda: ask("http"), lambda: ask("grpc"))


@cases.refusal(PEER, "shared memory", "client/src/python/examples: outputs in shared memory")
def outputs_in_shared_memory(asked: world.World) -> str:
    """So is an output that is wanted there."""

    def ask(protocol: str) -> object:
        wanted = world.wanted(protocol, "OUTPUT0")
        wanted[0].set_shared_memory(REGION, REGION_BYTES)
        return asked.infer(protocol, "simple", PAIR, outputs=wanted)

    return _texts(lambda: ask("http"), lambda: ask("grpc"))


@cases.refusal(PEER, "sequences", "client/src/python/examples/simple_*_sequence_*_client.py")
def requests_of_a_sequence(asked: world.World) -> str:
    """A request that belongs to a sequence is refused, never answered as one of its own."""
    more: dict[str, Any] = {"sequence_id": 7, "sequence_start": True}
    return _texts(
        lambda: asked.infer("http", "simple", PAIR, **more),
        lambda: asked.infer("grpc", "simple", PAIR, **more),
    )


def _folder(asked: world.World, model: str) -> str:
    """Return why a folder of the repository is not served, which a load and the index tell.

    No request for it is answered.
    """
    client = asked.http
    said = _texts(lambda: client.load_model(model), lambda: asked.grpc.load_model(model))
    for protocol in world.PROTOCOLS:
        assert not asked.triton(protocol).is_model_ready(model)
        given = {"x": np.ones((1, 4), np.float32)}
        assert triton_control.refused(asked.infer, protocol, model, given)
        entry = triton_control.index_of(asked, protocol)[f"{model}/"]
        assert entry["state"] == "UNAVAILABLE"
        assert said.endswith(entry["reason"]), (said, entry)
    return str(entry["reason"])


@cases.refusal(PEER, "sequences", "docs/examples/model_repository/simple_sequence")
def folders_with_sequence_batching(asked: world.World) -> str:
    """A folder with sequence_batching is not served."""
    return _folder(asked, "sequence")


@cases.refusal(PEER, "decoupled models", "client/src/python/examples/simple_grpc_custom_repeat.py")
def decoupled_folders(asked: world.World) -> str:
    """A folder whose model answers more than once is not served."""
    return _folder(asked, "decoupled")


@cases.refusal(PEER, "ensembles", "client/src/python/examples/ensemble_image_client.py")
def ensembles(asked: world.World) -> str:
    """An ensemble is not served."""
    return _folder(asked, "ensemble")


@cases.refusal(PEER, "ragged batches", "docs/user_guide/ragged_batching.md")
def ragged_folders(asked: world.World) -> str:
    """A folder with ragged batches is not served."""
    return _folder(asked, "ragged")


def _load_failure(asked: world.World, model: str) -> str:
    """Return why a model can't be loaded, which metadata and loads tell alike."""
    reason = _texts(
        lambda: asked.http.get_model_metadata(model), lambda: asked.grpc.get_model_metadata(model)
    )
    said = _texts(lambda: asked.http.load_model(model), lambda: asked.grpc.load_model(model))
    assert said == f"failed to load '{model}', {reason}", said
    return reason


@cases.refusal(PEER, "TensorFlow models", "qa/L0_infer: savedmodel, graphdef")
def saved_models(asked: world.World) -> str:
    """A SavedModel has no runtime."""
    return _load_failure(asked, "saved_model")


@cases.refusal(PEER, "texts in TorchScript", "qa/L0_infer: libtorch with strings")
def texts_in_torch(asked: world.World) -> str:
    """A TorchScript model that takes List[str] is not loaded."""
    return _load_failure(asked, "libtorch_STRING")


@cases.refusal(PEER, "trace settings", "docs/protocol/extension_trace.md")
def changes_of_trace_settings(asked: world.World) -> str:
    """Trace settings can't be changed."""
    settings = {"trace_level": ["TIMESTAMPS"]}
    return _texts(
        lambda: asked.http.update_trace_settings(settings=settings),
        lambda: asked.grpc.update_trace_settings(settings=settings),
    )


@cases.refusal(PEER, "log settings", "docs/protocol/extension_logging.md")
def changes_of_log_settings(asked: world.World) -> str:
    """Log settings can't be changed."""
    return _texts(
        lambda: asked.http.update_log_settings({"log_verbose_level": 1}),
        lambda: asked.grpc.update_log_settings({"log_verbose_level": 1}),
    )


@cases.refusal(PEER, "generate", "docs/protocol/extension_generate.md: small models")
def generate_of_a_small_model(asked: world.World) -> str:
    """`generate` is for LLMs; a small model takes `infer`."""
    answer = asked.rest.post("/v2/models/simple/generate", json={"text_input": "a"})
    assert answer.is_client_error, answer.text
    return str(answer.json()["error"])


@cases.refusal(PEER, "classification", "docs/protocol/extension_classification.md: texts")
def classes_of_texts(asked: world.World) -> str:
    """Texts have no greatest ones."""
    given = {"INPUT0": np.array([[b"a", b"b"]], object)}

    def ask(protocol: str) -> object:
        wanted = world.wanted(protocol, "OUTPUT0", class_count=1)
        return asked.infer(protocol, "simple_identity", given, outputs=wanted)

    return _texts(lambda: ask("http"), lambda: ask("grpc"))


@cases.refusal("OpenAI", "compressed bodies", "curl --compressed")
def compressed_chats(asked: world.World) -> str:
    """Bodies for LLMs must not be compressed."""
    body = gzip.compress(json.dumps({"model": mesh.LLM, "messages": []}).encode())
    answer = asked.rest.post(
        "/v1/chat/completions", content=body, headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415, answer.text
    return str(answer.json()["error"]["message"])


@cases.refusal("TorchServe", "other paths", "docs/inference_api.md: /predictions/NAME")
def paths_of_torchserve(asked: world.World) -> str:
    """Paths of other servers lead nowhere, and say so in JSON."""
    answer = asked.rest.post("/predictions/simple", content=b"x")
    assert answer.is_client_error, answer.text
    return str(answer.json()["error"])
