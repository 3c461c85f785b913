"""The JSON of the management API `/mesh/v1`: the controller writes it, its client reads it."""

from __future__ import annotations

from typing import TypedDict


class ByteCounts(TypedDict):
    """Bytes of host memory and of GPU memory."""

    host: int
    gpu: int


class WorkerStatus(TypedDict):
    """One pool worker. Counts are since its process began; `in_flight` is the present number."""

    id: str
    node: str
    pid: int
    state: str
    reason: str
    restarts: int
    resident: int
    loading: int
    booked_bytes: ByteCounts
    budget_bytes: ByteCounts
    private_bytes: int
    requests: int
    failures: int
    hits: int
    misses: int
    loads: int
    load_failures: int
    evictions: int
    in_flight: int


class PoolStatus(TypedDict):
    """One pool and its workers, of which there should be `workers_wanted`.

    `reason` says why that number was chosen, "" if it is fixed or was never changed. `held` is the
    number of requests that wait for the first worker.
    """

    name: str
    device: str
    workers_min: int
    workers_max: int
    workers_wanted: int
    reason: str
    held: int
    workers: list[WorkerStatus]


class GatewayStatus(TypedDict):
    """One node's gateway. A pid is 0 while the process is not running.

    `native` is "on" if requests go to workers as frames, else "off", with the reason if it was
    wanted.
    """

    node: str
    pid: int
    envoy_pid: int
    state: str
    reason: str
    listen: str
    restarts: int
    native: str


class ModelCounts(TypedDict):
    """How many models are registered, and how many of them are in which state."""

    registered: int
    resident: int
    loading: int
    failed: int


class SpreadModel(TypedDict):
    """A busy model that several workers serve."""

    model: str
    workers: list[str]


class ReplicaStatus(TypedDict):
    """One replica of an LLM. `kv_used` is from 0 to 1; `requests` and `tokens` are totals.

    `memory_bytes` is what its processes take, `memory_free_bytes` what its node has left.
    """

    id: str
    node: str
    pid: int
    state: str
    reason: str
    restarts: int
    running: int
    waiting: int
    requests: int
    tokens: int
    tokens_per_s: float
    ttft_p50_s: float
    ttft_p95_s: float
    kv_used: float
    stalled_s: float
    max_model_len: int
    can_change_adapters: bool
    memory_bytes: int
    memory_free_bytes: int


class LlmStatus(TypedDict):
    """One LLM. `start_s` and `wake_s` are expected durations, None before the first one."""

    name: str
    state: str
    reason: str
    device: str
    names: list[str]
    replicas_min: int
    replicas_max: int
    replicas: list[ReplicaStatus]
    held: int
    turned_away: int
    starts: int
    start_s: float | None
    wakes: int
    wake_s: float | None


class ControllerStatus(TypedDict):
    """The controller's process."""

    pid: int
    restarts: int


class DrainStatus(TypedDict):
    """How far the drain of a node has come: counts of copies, and what still runs there."""

    moved: int
    to_move: int
    failed: int
    without_room: int
    remaining: list[str]


class NodeStatus(TypedDict):
    """One machine of the cluster. Its state is ready, moving, leaving or drained."""

    id: str
    name: str
    address: str
    is_head: bool
    state: str
    drain: DrainStatus | None


class StoppedJoining(TypedDict):
    """A model whose requests share runs no more on a worker, since that gave another answer."""

    model: str
    version: str
    worker: str
    reason: str


class QuarantinedModel(TypedDict):
    """A model that has ended processes, and is not run until it is released."""

    model: str
    version: str
    reason: str


class HungModel(TypedDict):
    """A model with `runs` that go on in threads of a worker, though nobody waits for them."""

    model: str
    version: str
    worker: str
    runs: int


class DanglingAlias(TypedDict):
    """An alias whose model or version went away; `reason` names the versions that there are."""

    alias: str
    reason: str


class MemoryHogStatus(TypedDict):
    """A model that ran `times` times while its worker took far more memory than its budget.

    `peak_bytes` is what the worker took the last time. Another model may have taken it that ran at
    the same time.
    """

    model: str
    version: str
    worker: str
    times: int
    peak_bytes: int


class RepositoryStatus(TypedDict):
    """A repository: the number of versions that it declares, and why others are not served."""

    place: str
    models: int
    problems: list[str]


class MeshStatus(TypedDict):
    """The answer of `GET /mesh/v1/status`. `state` is `starting`, `ready` or `draining`.

    `mesh_id` is that of the mesh's registry: it stays when the mesh starts again. `routed` says
    whether all gateways know every worker that is ready.
    """

    version: str
    mesh_id: str
    state: str
    endpoint: str
    routed: bool
    pools: list[PoolStatus]
    gateways: list[GatewayStatus]
    models: ModelCounts
    quarantined: list[QuarantinedModel]
    spread: list[SpreadModel]
    joins_stopped: list[StoppedJoining]
    hung: list[HungModel]
    aliases_dangling: list[DanglingAlias]
    hogs: list[MemoryHogStatus]
    repositories: list[RepositoryStatus]
    llms: list[LlmStatus]
    nodes: list[NodeStatus]
    controller: ControllerStatus


class EventStatus(TypedDict):
    """Something that happened at `at_s`, Unix time; fields that don't apply are empty.

    `process` is the id of a worker or replica, or "gateway"; `by` is who or what made a change.
    """

    number: int
    at_s: float
    kind: str
    reason: str
    model: str
    version: str
    process: str
    node: str
    by: str
    took_s: float


class EventPage(TypedDict):
    """A page of events, oldest first. `next` is the `after` of the next page of the same `log`.

    `known_since_s` is when this controller began; what is older it has from workers that ran
    before. `missed` events were more than workers remember until they report.
    """

    log: str
    known_since_s: float
    missed: int
    events: list[EventStatus]
    next: int


class JoiningStatus(TypedDict):
    """Whether requests that wait together share runs.

    `state` is `joined`, `unproven` (nothing was to be joined yet), `never`, `stopped` (a joined run
    gave another answer), or "" while no copy is ready. `reason` says why they don't, if known.
    """

    state: str
    reason: str


class LastLoad(TypedDict):
    """When a model was last loaded, Unix time, and how long that took."""

    at_s: float
    took_s: float


class LastDeparture(TypedDict):
    """When a model last left memory, or was too big for it, and why: for which other model."""

    at_s: float
    kind: str
    reason: str


class FailedLoad(TypedDict):
    """Why the last load failed, how many did in a row, and when the next one is tried."""

    error: str
    in_a_row: int
    next_try_in_s: float


class LastError(TypedDict):
    """What a model's code raised last, at `at_s`, Unix time."""

    at_s: float
    error: str


class TensorStatus(TypedDict):
    """An input or output; a -1 in `shape` stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelStatus(TypedDict):
    """One version of a model. `worker` has the copy nearest to ready, "" without a copy.

    `replaced` are the versions that the model's owner declares, if a load request overrides them.
    `aliases_dangling` are those of `aliases` whose version went away.
    """

    name: str
    version: str
    versions: list[str]
    newest: str
    state: str
    reason: str
    runtime: str
    uri: str
    pool: str
    pinned: bool
    origin: str
    worker: str
    footprint_bytes: ByteCounts
    requests: int
    joining: JoiningStatus
    hung_runs: int
    aliases: list[str]
    aliases_dangling: list[str]
    replaced: list[str]


class ModelDetails(ModelStatus):
    """One version of a model, asked for by name: with what its workers know of it.

    `footprint_from` says how the footprint is known, `slow` what requests wait for now,
    `pinned_by` what pins it. `failed_requests` are counts by kind of error.
    """

    inputs: list[TensorStatus]
    outputs: list[TensorStatus]
    footprint_from: str
    last_load: LastLoad | None
    last_departure: LastDeparture | None
    load_failure: FailedLoad | None
    last_error: LastError | None
    failed_requests: dict[str, int]
    slow: list[str]
    pinned_by: str


class ModelPage(TypedDict):
    """A page of models. `next` is the `after` of the next page, None on the last one."""

    models: list[ModelStatus]
    next: str | None
