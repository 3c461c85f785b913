"""What the core needs from model libraries and from storage.

A third party adds a kind of model by subclassing `Runtime` and `LoadedModel`: see
docs/write-a-runtime.md. They are base classes, not Protocols, so that a plug-in written today keeps
working when a capability is added.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from meshserve.core.values import model

if TYPE_CHECKING:
    import numpy as np

    Tensors: TypeAlias = "Mapping[str, np.ndarray]"

Parameters: TypeAlias = Mapping[str, Any]
"""Values by name as the Open Inference Protocol has them: texts, numbers and booleans."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model's bytes on this node: a file, or a folder of files.

    The files at `path` do not change and stay readable while the artifact is held (`Storage.hold`),
    and for some minutes after it was fetched. `digest` is `sha256:<hex>` of the content: equal
    bytes have equal digests, whatever their URI. `size_bytes` is the sum of the files' sizes.
    `is_cached`: the files lie in meshserve's own cache, so that no other program truncates them:
    only such files may be memory-mapped.
    """

    path: PurePath
    digest: str
    size_bytes: int
    is_cached: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the worker may do with one loaded model."""

    is_reentrant: bool = False
    """Several threads may call `predict` at the same time."""

    is_steady: bool = True
    """Equal calls of `predict` and `close` take about equal times, and wait for nothing.

    Quick ones may then run on the event loop. False for code such as a user's own class.
    """

    can_detach: bool = False
    """The model implements `detach` and `attach`."""

    mapped_bytes: int = 0
    """Bytes of the artifact that the model has memory-mapped.

    They are counted on top of what the process's private memory grew by.
    """

    needs_details: bool = False
    """Each run is for one request, whose id, parameters and headers the model sees.

    The worker then calls `predict_request`, and never joins requests.
    """

    gpu_bytes: int | None = None
    """Bytes that the model takes on the GPU; None if unknown, then the runtime's hint counts."""


@dataclass(slots=True)
class RequestDetails:
    """What a request says besides its tensors, for models whose `needs_details` is set.

    `headers` are those of HTTP or gRPC's metadata, by names in small letters, without secrets.
    `outputs` are the names that were asked for, empty for all. `input_parameters` and
    `output_parameters` are by the tensor's name. `nesting` has the shape of the lists in which an
    input's values came by JSON, if that is not one list; `is_json`: texts came as such, and not
    as bytes.
    """

    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    input_parameters: Mapping[str, Parameters] = field(default_factory=dict)
    output_parameters: Mapping[str, Parameters] = field(default_factory=dict)
    nesting: Mapping[str, Sequence[int]] = field(default_factory=dict)
    is_json: bool = False


class AnswerTensors(dict[str, "np.ndarray"]):
    """The outputs of any shapes by name, and the parameters that go back with them.

    `predict_request` may return it in place of a plain mapping.
    """

    def __init__(
        self,
        tensors: Tensors,
        parameters: Parameters | None = None,
        output_parameters: Mapping[str, Parameters] | None = None,
    ) -> None:
        super().__init__(tensors)
        self.parameters = parameters or {}
        self.output_parameters = output_parameters or {}


class LoadedModel(abc.ABC):
    """A model in memory.

    `signature` describes the tensors that `predict` takes and returns; it was verified while
    loading, where possible. If it has no outputs, each answer has its own, from which the worker
    learns. `probe` is an input for `predict` with one row, or None: the worker times it to learn
    how long a run takes.
    """

    __slots__ = ()

    signature: model.Signature
    capabilities: Capabilities = Capabilities()
    probe: Tensors | None = None

    @abc.abstractmethod
    def predict(self, inputs: Tensors, outputs: Sequence[str]) -> Tensors:
        """Run the model once.

        `inputs` has an array for each input of the signature, already checked for its datatype and
        shape (a dimension of -1 has any size); inputs that are optional may be missing, and those
        of an open signature are as they came. Arrays are C-contiguous and may be read-only views
        of a received message: they must not be changed, nor kept after the call. `outputs` names
        the outputs to return; empty means all.

        Returns the outputs by name, with the signature's datatypes and shapes. They belong to the
        caller: the model must not write to them later. If the signature has a batch dimension, all
        arrays have the same first dimension.

        Datatypes in numpy: BYTES is an object array of `bytes`, BF16 its bits as uint16, others as
        they are called.

        Called from any thread, the event loop's too if `is_steady`; by one thread at a time unless
        `is_reentrant`. Raises InvalidRequest for values that the model can't take. Anything else
        that it raises reaches the caller as ModelRaised.
        """

    def predict_request(
        self,
        inputs: Tensors,
        outputs: Sequence[str],
        details: RequestDetails,  # noqa: ARG002 an implementation needs it
    ) -> Tensors:
        """Run the model once for one request, as `predict` does; called if `needs_details` is set.

        Shapes are those of `predict`. The result may be AnswerTensors. Raises as `predict`.
        """
        return self.predict(inputs, outputs)

    @abc.abstractmethod
    def close(self) -> None:
        """Free the model's memory. Called once, even if the model is offloaded or detached.

        No `predict` begins any more, but one whose caller has left may still be running: it may
        fail, and must not crash the process. The same holds for `offload` and `detach`.
        """

    def offload(self) -> None:
        """Move everything from the GPU to host memory. Called only if the runtime `can_offload`."""
        raise AssertionError(f"{type(self).__name__} does not implement offload")

    def onload(self) -> None:
        """Move everything back to the GPU. Called only after `offload`."""
        raise AssertionError(f"{type(self).__name__} does not implement onload")

    def detach(self) -> None:
        """Unmap the weights, keeping the small rest.

        Called only if `can_detach`; `attach` or `close` comes next.
        """
        raise AssertionError(f"{type(self).__name__} does not implement detach")

    def attach(self, artifact: Artifact) -> None:  # noqa: ARG002 an implementation needs it
        """Map the weights again from an artifact of the same digest.

        Raises LoadFailed if that is impossible.
        """
        raise AssertionError(f"{type(self).__name__} does not implement attach")


class Runtime(abc.ABC):
    """Loads one kind of model. Its module is the only code that imports that kind's library.

    `name` is what a user writes as a model's `runtime`. `needs_files`: its models read the
    artifact's files after `load` too, so the artifact is held until they are closed. `can_offload`:
    its models on a GPU implement `offload` and `onload`. `library` is the module that `prepare`
    imports, and `library_bytes` about what it takes of a process's private memory: a worker that
    has no room for that refuses its models. 0 checks nothing.
    """

    name: str
    needs_files: bool = True
    can_offload: bool = False
    library: str = ""
    library_bytes: int = 0

    @abc.abstractmethod
    def accepts(self, artifact: Artifact) -> bool:
        """Return whether the artifact looks like this kind, by names and first bytes.

        Does not import the library.
        """

    @abc.abstractmethod
    def prepare(self, device: str) -> None:
        """Import the library and check the device, `cpu` or `cuda`.

        Raises MissingExtra or LoadFailed. Called before each load, from any thread, so that what
        the process grows by in `load` is the model's alone. The second call must be cheap.
        """

    @abc.abstractmethod
    def footprint_hint(self, artifact: Artifact, device: str) -> model.Footprint:
        """Return an upper guess of the footprint in bytes, for use until a load has measured it."""

    def copy_name(
        self,
        artifact: Artifact,  # noqa: ARG002 an implementation needs it
        spec: model.ModelSpec,  # noqa: ARG002
    ) -> str:
        """Return what a copy is besides its bytes and its declaration, such as its model's name.

        Models of equal bytes share one copy if this is equal too.
        """
        return ""

    def find_row_mixing(
        self,
        loaded: LoadedModel,  # noqa: ARG002 a runtime without proof needs none of them
        artifact: Artifact,  # noqa: ARG002
        spec: model.ModelSpec,  # noqa: ARG002
    ) -> str | None:
        """Return None if the model is shown to keep rows apart, else why that is not shown.

        Called from a thread of its own, beside predictions, when joining requests would pay and
        `loaded.signature` has a batch dimension, but leaves `can_join` open. It may take seconds.
        """
        return self.lacks_proof or ""

    @property
    def lacks_proof(self) -> str | None:
        """Why this runtime can show of no model that it keeps rows apart, None if it may."""
        if type(self).find_row_mixing is not Runtime.find_row_mixing:
            return None
        return f"runtime {self.name} does not show that rows are independent"

    @abc.abstractmethod
    def load(self, artifact: Artifact, spec: model.ModelSpec, device: str) -> LoadedModel:
        """Load the model onto the device, and run it once if inputs can be made up.

        Called from a thread of its own, at the same time as other loads. The signature must agree
        with the tensors that `spec` declares. Raises LoadFailed with the reason for a user, or
        MissingExtra if the library is missing.
        """


class Storage(Protocol):
    """Brings artifacts to this node. Used from one event loop."""

    async def fetch(
        self, uri: str, checksum: str, *, verifies: bool = False, file_root: str = ""
    ) -> Artifact:
        """Return the artifact at `uri` as it is now, from the node's cache if its content is there.

        `checksum` is empty, or the `sha256:<hex>` that the bytes at `uri` must have. With
        `verifies` the files are compared with what is known of them, as far as that is cheap.
        Local files must lie in the folder `file_root`, unless that is empty.
        Raises LoadFailed with the reason for a user.
        """
        ...

    async def is_untouched(self, artifact: Artifact) -> bool:
        """Return whether the files are there, and nobody wrote to them since they were verified."""
        ...

    async def find_earlier(self, uri: str) -> str:
        """Return the URI of what the files were before they were what `uri` says, "" if unknown.

        It can be fetched as long as the cache holds it.
        """
        ...

    def give_up(self, uri: str) -> None:
        """Note that what was fetched from this URI last can't be loaded."""
        ...

    def hold(self, artifact: Artifact) -> None:
        """Keep the artifact's files until as many calls of `release`."""
        ...

    def release(self, artifact: Artifact) -> None:
        """End one hold."""
        ...

    async def close(self) -> None:
        """Stop fetching and end all holds. The cache on disk stays for other processes."""
        ...
