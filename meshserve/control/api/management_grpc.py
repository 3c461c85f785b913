"""The gRPC methods that the controller answers.

Requests and answers are bare messages: Envoy's bridge removes and adds gRPC's frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import message
from starlette.requests import Request
from starlette.responses import Response

from meshserve import errors
from meshserve.control import admin_service
from meshserve.control.api import modelmesh, rest_routes, triton_extensions, triton_repository
from meshserve.protocol import model_description, paths
from meshserve.protocol.pb import inference_pb2 as pb
from meshserve.protocol.pb import modelmesh_pb2 as mm

Method = tuple[type[message.Message], Callable[[Any], Awaitable[message.Message]]]


class ManagementMethods:
    """All methods by path, each with the class of its request."""

    def __init__(
        self,
        service: admin_service.AdminService,
        repository: triton_repository.TritonRepository,
    ) -> None:
        self._repository = repository
        triton = self._triton_methods()
        self._methods: dict[str, Method] = {
            **triton,
            # In KServe the repository's methods are a gRPC service of their own.
            **{paths.in_repository_service(path): method for path, method in triton.items()},
            paths.MODEL_STATISTICS: (pb.ModelStatisticsRequest, self._statistics),
            **triton_extensions.GRPC_METHODS,
            **_modelmesh_methods(modelmesh.ModelMesh(service)),
        }

    async def answer(self, request: Request) -> Response:
        """Return the method's answer. Raises Unsupported for an unknown method, InvalidRequest."""
        path = request.scope["path"]
        if path not in self._methods:
            raise errors.Unsupported(f"there is no method {path}")
        request_class, perform = self._methods[path]
        try:
            content = request_class.FromString(await rest_routes.read_body(request))
        except message.DecodeError:
            raise errors.InvalidRequest(f"the body is no {request_class.DESCRIPTOR.name}") from None
        answer = await perform(content)
        return Response(answer.SerializeToString(), media_type="application/grpc")

    def _triton_methods(self) -> dict[str, Method]:
        return {
            paths.REPOSITORY_INDEX: (pb.RepositoryIndexRequest, self._index),
            paths.REPOSITORY_MODEL_LOAD: (pb.RepositoryModelLoadRequest, self._load),
            paths.REPOSITORY_MODEL_UNLOAD: (pb.RepositoryModelUnloadRequest, self._unload),
        }

    async def _index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        return model_description.index_message(self._repository.index(only_ready=request.ready))

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        name = _model_name(request)
        with triton_repository.loading(name):
            parameters = {key: _parameter(key, value) for key, value in request.parameters.items()}
            await self._repository.load(name, parameters)
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def _unload(
        self, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        name = _model_name(request)
        await self._repository.unload(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    async def _statistics(self, _: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        return model_description.statistics_message(await self._repository.statistics())


def _model_name(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    # KServe's clients write the model's name where Triton's write the repository's.
    return request.model_name or request.repository_name


def _parameter(key: str, parameter: pb.ModelRepositoryParameter) -> str | bytes:
    match parameter.WhichOneof("parameter_choice"):
        case "string_param":
            return parameter.string_param
        case "bytes_param":
            return parameter.bytes_param
    raise errors.InvalidRequest(f"parameter {key!r} must be a string or bytes")


def _modelmesh_methods(service: modelmesh.ModelMesh) -> dict[str, Method]:
    return {
        paths.REGISTER_MODEL: (mm.RegisterModelRequest, service.register_model),
        paths.UNREGISTER_MODEL: (mm.UnregisterModelRequest, service.unregister_model),
        paths.GET_MODEL_STATUS: (mm.GetStatusRequest, service.model_status),
        paths.ENSURE_LOADED: (mm.EnsureLoadedRequest, service.ensure_loaded),
        paths.SET_VMODEL: (mm.SetVModelRequest, service.set_vmodel),
        paths.DELETE_VMODEL: (mm.DeleteVModelRequest, service.delete_vmodel),
        paths.GET_VMODEL_STATUS: (mm.GetVModelStatusRequest, service.vmodel_status),
    }
