"""Models as frozen values: ids, signatures, specs and their origins, footprints, addresses."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

NOISE = 0.1
"""The relative difference up to which two measurements of the same bytes count as equal."""


# A tuple, because ids are the keys of the largest dictionaries, and tuples are hashed in C.
class ModelId(NamedTuple):
    """A model's name and version, as clients address it."""

    name: str
    version: str = "1"

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class Footprint(NamedTuple):
    """Bytes of host and GPU memory. A tuple, because every decision adds and compares many."""

    host_bytes: int = 0
    gpu_bytes: int = 0

    def plus(self, other: Footprint) -> Footprint:
        """Return the sum of both."""
        return Footprint(self.host_bytes + other.host_bytes, self.gpu_bytes + other.gpu_bytes)

    def minus(self, other: Footprint) -> Footprint:
        """Return the difference; negative where `other` is bigger."""
        return Footprint(self.host_bytes - other.host_bytes, self.gpu_bytes - other.gpu_bytes)

    def limited_to(self, other: Footprint) -> Footprint:
        """Return the smaller of both amounts for each device."""
        return Footprint(
            min(self.host_bytes, other.host_bytes), min(self.gpu_bytes, other.gpu_bytes)
        )

    def fits_in(self, free: Footprint) -> bool:
        """Return whether `free` is enough on each device."""
        return self.host_bytes <= free.host_bytes and self.gpu_bytes <= free.gpu_bytes


NO_BYTES = Footprint()


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output tensor. A -1 in `shape` stands for any size.

    `datatype` is a datatype of the Open Inference Protocol, like FP32 or BYTES. It is empty for an
    input of which only the name is known; `shape` then says nothing.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """The rows that a tabular model takes, in whatever form they come.

    `columns` are the names of its features in their order, empty if it has none. `is_by_column`:
    each input of the signature is a column; else the only input is a matrix with all of them.
    `main_outputs` is how many outputs, the first ones, are the columns of the main answer.
    `keeps_datatypes`: numbers reach the model with the datatype that came, because its library
    computes otherwise with another one.
    """

    columns: tuple[str, ...] = ()
    is_by_column: bool = False
    main_outputs: int = 1
    keeps_datatypes: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """The tensors that a model takes and returns.

    `has_batch_dimension`: the first dimension of every tensor counts rows, and a run returns as
    many rows as it gets. `can_join`: rows of different requests may share a run, because the kind
    of model or its owner guarantees that no row influences another; implies
    `has_batch_dimension`. `rows_max` bounds the rows of a run. `optional` names the inputs that a
    request may leave out; `labels` are the names of classes, in their order, by output. `table` is
    set for models of rows and columns, whose inputs may come under other names and datatypes.
    `is_open`: the model's own code judges whatever tensors come, and gives any outputs; `inputs`
    and `outputs` only tell clients what is usual.

    `has_open_inputs`: nobody declared them. `inputs` are what was seen so far, the model is the
    judge. `has_open_outputs`: the same of outputs, so each answer has its own names, datatypes and
    shapes. Empty `outputs` mean that too.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    has_batch_dimension: bool = False
    can_join: bool = False
    rows_max: int | None = None
    platform: str = ""
    optional: frozenset[str] = frozenset()
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    table: Table | None = None
    is_open: bool = False
    has_open_inputs: bool = False
    has_open_outputs: bool = False


class OriginKind(enum.Enum):
    """The kinds of `Origin`. ALIAS: the API, for an alias that removes its model with itself."""

    CONFIG = "config"
    API = "api"
    ALIAS = "alias"
    REPOSITORY = "repository"


@dataclass(frozen=True, slots=True)
class Origin:
    """Who declared a model. `place` is the path or URI of a repository, else empty."""

    kind: OriginKind
    place: str = ""

    def __str__(self) -> str:
        """Return the text for the registry and the API: `config` or `repository:<place>`."""
        is_repository = self.kind is OriginKind.REPOSITORY
        return f"{self.kind.value}:{self.place}" if is_repository else self.kind.value

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Return the origin of this text. Raises ValueError if its kind does not exist."""
        kind, _, place = text.partition(":")
        return cls(OriginKind(kind), place)


FROM_CONFIG = Origin(OriginKind.CONFIG)
FROM_API = Origin(OriginKind.API)
FROM_ALIAS = Origin(OriginKind.ALIAS)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of a model, as it is to be served.

    An empty `runtime` is inferred from the artifact. `trust` allows artifacts that are code
    (pickle, joblib, Python). `checksum` is empty or `sha256:<hex>`. `inputs` and `outputs` are for
    artifacts that have no signature. `batching` says whether rows of different requests may share
    a run; None leaves that to the runtime. `description` is empty, or JSON of Triton's model
    configuration and of the label files that it names:
    {"config": ModelConfig, "labels": {output: [label, …]}}. `unloaded`: the API has unloaded it,
    and it answers nothing until it is loaded. `isolate` says where the model runs: `process` in a
    process of its own, `none` in the worker, and an empty text where its pool says.
    `predict_timeout_s` is how long a prediction may take, 0 for as long as it takes, and None for
    as long as its pool says. `replaced` is
    empty, or what the model's owner declares for all its versions, while a load request overrides
    that. `sample` is empty, or JSON of a request that the model takes: nested values by input.
    `file_root` is empty, or the folder in which a local `uri` must really lie whenever it is read.
    """

    id: ModelId
    uri: str
    runtime: str = ""
    pool: str = "default"
    pinned: bool = False
    trust: bool = False
    checksum: str = ""
    load_timeout_s: float = 120.0
    batching: bool | None = None
    max_batch_size: int = 256
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    description: str = ""
    sample: str = ""
    unloaded: bool = False
    isolate: str = ""
    predict_timeout_s: float | None = None
    origin: Origin = FROM_API
    replaced: tuple[ModelSpec, ...] = ()
    file_root: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The footprint and load time of an artifact, by its digest, as a load has measured them.

    `load_s` is 0 if a load has succeeded beside others, so that only a guess of both is known.
    """

    # Not the model's id: what was measured of the bytes holds under any name.
    digest: str
    footprint: Footprint
    load_s: float

    def is_known(self, earlier: Measured | None, noise: float = NOISE) -> bool:
        """Return whether `earlier` measured the same bytes, and the same footprint up to `noise`.

        `noise` is the part of the larger one (0 to 1) by which two measurements may differ.
        """
        if earlier is None or earlier.digest != self.digest:
            return False
        if self.load_s > 0 and not earlier.load_s:
            return False
        pairs = zip(earlier.footprint, self.footprint, strict=True)
        return all(abs(one - other) <= noise * max(one, other) for one, other in pairs)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens: on `socket_path` for peers of its node, else on `host` and `port`.

    A server that no other node asks has no port: its host is "" and its port is 0.
    """

    node: str
    host: str
    port: int
    socket_path: str = ""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The id, node and run folder of a worker or an LLM replica, before it listens.

    `run_dir` is the folder for its socket, on its own node only. Other nodes connect to `host`; ""
    means that there are none. All requests must bring the `secret`, if there is one.
    """

    id: str
    run_dir: str
    node: str = "local"
    host: str = ""
    # Not shown, so that no log and no traceback tells it.
    secret: str = field(default="", repr=False)

    @property
    def socket_path(self) -> str:
        """Path of the Unix socket for peers on the same node.

        An LLM replica's id has a slash and may be long, so its digest names the socket: Linux
        bounds the path of a socket to 107 bytes.
        """
        name = f"llm-{xxhash.xxh64_hexdigest(self.id.encode())}" if "/" in self.id else self.id
        return f"{self.run_dir}/{name}.sock"
