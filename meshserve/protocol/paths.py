"""Every gRPC method and every HTTP path that the mesh serves. Pure names; must not import anything.

Sources: the Open Inference Protocol (KServe's V2) with Triton's extensions, TensorFlow Serving's
REST API (V1), KServe ModelMesh's management service, OpenAI's API with vLLM's additions, and our
own `/mesh`.
"""

from __future__ import annotations

# gRPC: services, then their methods by path

INFERENCE_SERVICE = "inference.GRPCInferenceService"
INFERENCE = f"/{INFERENCE_SERVICE}/"
REPOSITORY = "/inference.model_repository.ModelRepositoryService/"
MODEL_MESH = "/mmesh.ModelMesh/"
HEALTH = "/grpc.health.v1.Health/"
HEALTH_CHECK = f"{HEALTH}Check"
REFLECTION_SERVICE = "grpc.reflection.v1.ServerReflection"
REFLECTION = f"/{REFLECTION_SERVICE}/"
REFLECTION_ALPHA = "/grpc.reflection.v1alpha.ServerReflection/"

MODEL_INFER = f"{INFERENCE}ModelInfer"
MODEL_READY = f"{INFERENCE}ModelReady"
MODEL_METADATA = f"{INFERENCE}ModelMetadata"
MODEL_CONFIG = f"{INFERENCE}ModelConfig"
MODEL_STATISTICS = f"{INFERENCE}ModelStatistics"
MODEL_STREAM_INFER = f"{INFERENCE}ModelStreamInfer"
SERVER_LIVE = f"{INFERENCE}ServerLive"
SERVER_READY = f"{INFERENCE}ServerReady"
SERVER_METADATA = f"{INFERENCE}ServerMetadata"
# The inference service has these in Triton's protocol, the repository service in KServe's.
REPOSITORY_INDEX = f"{INFERENCE}RepositoryIndex"
REPOSITORY_MODEL_LOAD = f"{INFERENCE}RepositoryModelLoad"
REPOSITORY_MODEL_UNLOAD = f"{INFERENCE}RepositoryModelUnload"
SYSTEM_SHARED_MEMORY_STATUS = f"{INFERENCE}SystemSharedMemoryStatus"
SYSTEM_SHARED_MEMORY_REGISTER = f"{INFERENCE}SystemSharedMemoryRegister"
SYSTEM_SHARED_MEMORY_UNREGISTER = f"{INFERENCE}SystemSharedMemoryUnregister"
CUDA_SHARED_MEMORY_STATUS = f"{INFERENCE}CudaSharedMemoryStatus"
CUDA_SHARED_MEMORY_REGISTER = f"{INFERENCE}CudaSharedMemoryRegister"
CUDA_SHARED_MEMORY_UNREGISTER = f"{INFERENCE}CudaSharedMemoryUnregister"
TRACE_SETTING = f"{INFERENCE}TraceSetting"
LOG_SETTINGS = f"{INFERENCE}LogSettings"

REGISTER_MODEL = f"{MODEL_MESH}registerModel"
UNREGISTER_MODEL = f"{MODEL_MESH}unregisterModel"
GET_MODEL_STATUS = f"{MODEL_MESH}getModelStatus"
ENSURE_LOADED = f"{MODEL_MESH}ensureLoaded"
SET_VMODEL = f"{MODEL_MESH}setVModel"
DELETE_VMODEL = f"{MODEL_MESH}deleteVModel"
GET_VMODEL_STATUS = f"{MODEL_MESH}getVModelStatus"

# HTTP: a path that ends in a slash is a prefix

ROOT = "/"
V2 = "/v2"
V2_LIVE = "/v2/health/live"
V2_READY = "/v2/health/ready"
V2_MODELS = "/v2/models/"
V2_MODEL_LIST = "/v2/models"
V2_STATISTICS = "/v2/models/stats"
V2_REPOSITORY = "/v2/repository/"
V2_SYSTEM_SHARED_MEMORY = "/v2/systemsharedmemory/"
V2_CUDA_SHARED_MEMORY = "/v2/cudasharedmemory/"
V2_TRACE_SETTING = "/v2/trace/setting"
V2_LOGGING = "/v2/logging"
# V1's models and OpenAI's have the same prefix: the route table tells them apart by name.
V1_MODELS = "/v1/models/"

OPENAI = "/v1/"
OPENAI_MODELS = "/v1/models"
# Anthropic's API, which vLLM serves too.
ANTHROPIC_MESSAGES = "/v1/messages"
# OpenAI's whole API is served below a second prefix too, where no path means anything else.
OPENAI_PREFIX = "/openai"
PREFIXED_OPENAI = f"{OPENAI_PREFIX}{OPENAI}"
PREFIXED_OPENAI_MODELS = f"{OPENAI_PREFIX}{OPENAI_MODELS}"
# vLLM serves these beside OpenAI's paths.
ENGINE_PATHS = (
    "/tokenize",
    "/detokenize",
    "/score",
    "/rerank",
    "/pooling",
    "/classify",
    "/v2/rerank",
    "/v2/embed",
    "/invocations",
    "/inference/v1/generate",
)

# Headers that gateways add, which they take away from clients' requests first.
MODEL_HEADER = "x-mesh-model"
IS_ALIAS_HEADER = "x-mesh-is-alias"
CLIENT_HEADER = "x-mesh-client"
SECRET_HEADER = "x-mesh-secret"  # noqa: S105 a name
"""Shows a server of the mesh that another process of the same mesh asks."""

# The header of the secret by which the mesh's owner may name any local file.
OWNER_HEADER = "x-meshserve-owner-key"

MESH_V1 = "/mesh/v1/"
NODES = f"{MESH_V1}nodes"
HOLD = "/mesh/internal/held"
REASON_HEADER = "x-mesh-reason"
"""Why a held request was turned away, for answers to gRPC calls."""
METRICS = "/metrics"
HEALTHZ = "/healthz"
READYZ = "/readyz"


def in_repository_service(path: str) -> str:
    """Return the path of a method of Triton's inference service in KServe's repository service."""
    return REPOSITORY + method_name(path)


def method_name(path: str) -> str:
    """Return the name of the method with this path, as generated code and descriptors use it."""
    return path.rpartition("/")[2]
