"""Every error that a request or command can end with, and its codes on the wire.

    MeshError
    ├── InvalidRequest        the caller's message is wrong           INVALID_ARGUMENT     400
    ├── ModelNotFound         no such model or version                NOT_FOUND            404
    ├── AlreadyExists         the name means something else           ALREADY_EXISTS       409
    ├── Conflict              the mesh is in another state            FAILED_PRECONDITION  409
    ├── PayloadTooLarge       the message is over the limit           RESOURCE_EXHAUSTED   413
    ├── LoadFailed            the model can't be loaded               FAILED_PRECONDITION  424
    │   ├── ModelTooBig       it is bigger than the whole budget
    │   ├── MissingExtra      its library is not installed
    │   ├── Unloadable        no further try helps before something is changed
    │   ├── LoadDied          its own process died during the load
    │   └── Quarantined       it ends its process, and is not run
    ├── Overloaded            a queue, rate or quota is full          RESOURCE_EXHAUSTED   429
    ├── Unauthenticated       no or unknown credentials               UNAUTHENTICATED      401
    ├── PermissionDenied      known credentials, not allowed          PERMISSION_DENIED    403
    ├── ModelRaised           the model's own code raised             INTERNAL             500
    │   └── ModelDied         its own process died during the run
    ├── Unsupported           a known method that is not offered      UNIMPLEMENTED        501
    ├── Unavailable           draining, or no worker left             UNAVAILABLE          503
    │   └── ModelUnavailable  its own code says that it can't answer now
    ├── DeadlineExceeded      the caller's time is over               DEADLINE_EXCEEDED    504
    └── ConfigInvalid         a configuration or an entry is wrong    INVALID_ARGUMENT     400

gRPC codes are numbers of `google.rpc.Code`. The command line ends with exit code 2 for
ConfigInvalid, with 1 for all others. Our own bugs are AssertionErrors, never members of this tree.
"""

from __future__ import annotations

from typing import ClassVar


class MeshError(Exception):
    """Base of the tree. `retry_after_s` is set if waiting that long is expected to help."""

    grpc_code: ClassVar[int] = 2
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled with their positional arguments alone, which would lose the wait.
        return (_rebuild, (type(self), self.message, self.retry_after_s))


def text_of(error: BaseException) -> str:
    """Return the message of any exception: that of a model's own may raise when it is read."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 a model's code may raise anything
        return "its message can't be read"


def words_of(error: BaseException) -> str:
    """Return the class and the message of any exception."""
    return f"{type(error).__name__}: {text_of(error)}"


def _rebuild(error_class: type[MeshError], message: str, retry_after_s: float | None) -> MeshError:
    return error_class(message, retry_after_s=retry_after_s)


class InvalidRequest(MeshError):
    """The message is malformed or does not fit the model's signature."""

    grpc_code, http_status = 3, 400


class ModelNotFound(MeshError):
    """No model, version or alias of that name is registered."""

    grpc_code, http_status = 5, 404


class AlreadyExists(MeshError):
    """The name is taken by a different definition."""

    grpc_code, http_status = 6, 409


class Conflict(MeshError):
    """The request is valid, but needs the mesh in another state; the message says which."""

    grpc_code, http_status = 9, 409


class PayloadTooLarge(MeshError):
    """The message is bigger than the gateway's limit."""

    grpc_code, http_status = 8, 413


class LoadFailed(MeshError):
    """The model could not be loaded; `retry_after_s` says when it is tried again."""

    grpc_code, http_status = 9, 424


class ModelTooBig(LoadFailed):
    """The model does not fit into the whole budget of a worker."""


class MissingExtra(LoadFailed):
    """The library that runs the model is not installed; the message names the extra to install."""


class Unloadable(LoadFailed):
    """The model can't be loaded before its files or its settings are changed."""


class LoadDied(LoadFailed):
    """The model's own process died while it loaded; the message names the signal or exit code."""


class Quarantined(LoadFailed):
    """The model ended a worker and then a process of its own; it is not run until it is released.

    The message names the signal or exit code.
    """


class Overloaded(MeshError):
    """A queue, rate or quota is full."""

    grpc_code, http_status = 8, 429


class Unauthenticated(MeshError):
    """No credentials, or unknown ones."""

    grpc_code, http_status = 16, 401


class PermissionDenied(MeshError):
    """The credentials are known, but do not allow this."""

    grpc_code, http_status = 7, 403


class ModelRaised(MeshError):
    """The model's own code raised; the message is its own, without a traceback."""

    grpc_code, http_status = 13, 500


class ModelDied(ModelRaised):
    """The model's own process died while it ran; the message names the signal or exit code."""


class Unsupported(MeshError):
    """A method or option that the protocol knows and meshserve does not offer."""

    grpc_code, http_status = 12, 501


class Unavailable(MeshError):
    """No process can answer now: the mesh drains, or no worker is left."""

    grpc_code, http_status = 14, 503


class ModelUnavailable(Unavailable):
    """The model's own code says that it can't answer now; no other worker is asked."""


class DeadlineExceeded(MeshError):
    """The caller's time ran out before the answer."""

    grpc_code, http_status = 4, 504


class ConfigInvalid(MeshError):
    """A configuration, or one entry of it in a management request, is wrong.

    The message has a line for each mistake, with file and line if there is a file, the field, and
    what would be right.
    """

    grpc_code, http_status = 3, 400
