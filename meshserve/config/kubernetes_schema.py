"""The keys of `kubernetes:` in config.yaml, from which `meshserve manifest` is computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from meshserve.config import fields

ImageName = Annotated[fields.Text, Field(pattern=fields.IMAGE, max_length=400)]
FeatureGate = Literal[
    "GCSFaultToleranceEmbeddedStorage", "RayClusterMTLS", "RayClusterNetworkPolicy"
]
Labels = dict[fields.Text, fields.Text]


class PodReplicasSection(fields.Section):
    """How many pods a group may have."""

    min: fields.Natural
    """The least number."""
    max: fields.Natural
    """The largest number, up to which Ray's autoscaler goes."""


class PodGroupSection(fields.Section):
    """Pods of one pool, or of one LLM."""

    cpus: fields.Count | None = None
    """CPU cores of a pod, requested and limited. Default: 2, or 4 for an LLM."""
    memory: fields.PositiveSize | None = None
    """Memory of a pod, requested and limited. Default: what its workers or its engine may use,
    /dev/shm, and 1.5 GiB for Ray and the gateway."""
    shared_memory: fields.PositiveSize | None = None
    """The size of /dev/shm, which counts as memory of the pod. Default: 512 MiB, or 2 GiB for each
    GPU of an LLM."""
    gpus: fields.Natural | None = None
    """GPUs of a pod. Default: what the pool's worker or the LLM's engine needs."""
    gpu_resource: fields.Text = "nvidia.com/gpu"
    """The name by which Kubernetes knows the GPUs."""
    replicas: PodReplicasSection | None = None
    """How many pods. Default: one for each worker of the pool, or for each replica of the LLM."""
    node_selector: Labels = {}  # noqa: RUF012 - pydantic copies it
    """Labels of the nodes on which the pods may run."""
    tolerations: tuple[dict[str, fields.Json], ...] = ()
    """Kubernetes' tolerations of the pods, as they are."""
    idle_timeout_s: fields.Count = 300
    """How long Ray's autoscaler lets an idle pod stay."""


class HeadPodSection(fields.Section):
    """The pod of Ray's head, with the controller, and with no models."""

    cpus: fields.Count = 2
    """Its CPU cores, requested and limited."""
    memory: fields.PositiveSize = 8 << 30
    """Its memory, requested and limited."""
    storage: fields.PositiveSize = 20 << 30
    """The size of the volume that holds `state_dir`: the registry, and the mesh's secret."""
    storage_class: fields.Text | None = None
    """The storage class of that volume. Default: the cluster's default."""


class GcsSection(fields.Section):
    """Where Ray's head keeps its tables, so that another head can go on with them."""

    backend: Literal["none", "redis", "rocksdb"] = "none"
    """`redis`: in the Redis at `redis_address`; `rocksdb`: on a volume, which needs the gate
    `GCSFaultToleranceEmbeddedStorage`; `none`: the mesh ends with its head."""
    redis_address: fields.Text = ""
    """`redis:6379`, or another address that Ray takes."""
    redis_secret: fields.Text = ""
    """The Secret whose key `password` holds Redis' password. Default: no password."""

    @model_validator(mode="after")
    def _fits_backend(self) -> GcsSection:
        if self.backend == "redis" and not self.redis_address:
            raise ValueError("backend: redis needs redis_address, for example redis:6379")
        if self.backend != "redis" and (self.redis_address or self.redis_secret):
            raise ValueError("redis_address and redis_secret are only used with backend: redis")
        return self


class PodVolumeSection(fields.Section):
    """A volume with models, which all pods see under the same path."""

    claim: fields.Text
    """The PersistentVolumeClaim; several nodes must be able to read it at once."""
    path: fields.AbsolutePath
    """The folder under which it is mounted, read-only."""


class KubernetesSection(fields.Section):
    """What `meshserve manifest` needs to know beyond the mesh itself."""

    name: fields.Text = "mesh"
    """The name of the RayCluster or RayService; names of all other objects begin with it."""
    namespace: fields.Text = "default"
    """The namespace of all objects."""
    image: ImageName = ""
    """The image of CPU pods. Default: `meshserve:VERSION-cpu`, which `Dockerfile` builds."""
    gpu_image: ImageName = ""
    """The image of pods with GPUs. Default: `meshserve:VERSION-cuda`."""
    drain_s: fields.Count = 60
    """How long models and LLMs of a pod that ends may take to move; then its requests have 30 s."""
    secret: fields.Text = ""
    """The Secret whose keys are the variables of `gateway.keys`. Default: NAME-keys."""
    registry_secret: fields.Text = ""
    """The Secret whose key `password` is that of the registry's database."""
    token_secret: fields.Text = ""
    """The Secret whose key `auth_token` is Ray's token. Default: one that KubeRay makes."""
    feature_gates: tuple[FeatureGate, ...] = ()
    """Gates that are on in the KubeRay operator, beside those that are on by default."""
    gcs: GcsSection = GcsSection()
    """Whether the mesh goes on when its head is replaced."""
    head: HeadPodSection = HeadPodSection()
    """The head's pod."""
    groups: dict[fields.Text, PodGroupSection] = {}  # noqa: RUF012 - pydantic copies it
    """Pods by the group's name: `pool-NAME`, `llm-NAME`, or `share-WORD` for LLMs that share
    GPUs."""
    volumes: dict[fields.Text, PodVolumeSection] = {}  # noqa: RUF012 - pydantic copies it
    """Volumes with models by name. Local files can only be served from them."""
    clients: Labels | None = None
    """Labels of the namespaces whose pods may reach the gateways; `{}`: all. Default: all if there
    are `gateway.keys`, else the mesh's own."""
    patch: dict[str, fields.Json] = {}  # noqa: RUF012 - pydantic copies it
    """Merged into the RayCluster's `spec`, for what has no key here: mappings by key, lists of
    named entries by name, all else replaced."""
    service_patch: dict[str, fields.Json] = {}  # noqa: RUF012 - pydantic copies it
    """Merged in the same way into the `spec` of the RayService of `--serve`."""
