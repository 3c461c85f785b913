"""What a configuration may not say on Kubernetes, in the words of the configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from meshserve import config
from meshserve.config import diagnostics
from meshserve.kubernetes import group_rules, kube_names, pod_config, pod_paths

Faults = Iterator[config.Diagnostic]

SECTION = "kubernetes"
PORT_MIN = 1024
RESERVED_PORTS = frozenset(
    {
        pod_paths.GCS_PORT,
        pod_paths.RAYLET_PORT,
        pod_paths.METRICS_PORT,
        pod_paths.DASHBOARD_PORT,
        pod_paths.AGENT_PORT,
        *pod_paths.WORKER_PORTS,
    }
)
RESERVED_VOLUMES = frozenset(
    {"config", "state", "tmp", "shared-mem", "keys", "gcs-storage", "ray-tls", "ray-logs"}
)
OWN_FOLDERS = ("/etc", "/tmp", "/dev", "/proc", "/sys", pod_paths.VOLUME_DIR)  # noqa: S108 - names
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def faults(settings: config.Config, *, is_served: bool) -> Faults:
    """Yield the faults of a configuration, with the paths of its keys."""
    yield from _secrets(settings)
    yield from _gateway_port(settings)
    yield from _registry(settings, is_served=is_served)
    yield from _files(settings)
    yield from _names(settings)
    yield from _volumes(settings)
    yield from group_rules.faults(settings)


def _secrets(settings: config.Config) -> Faults:
    for index, key in enumerate(settings.gateway.keys):
        path = ("gateway", "keys", index)
        variable = config.variable_of(key.key)
        if variable is None:
            message = "a ConfigMap is no place for secrets: give key_env, a key of the Secret"
            yield config.Diagnostic((*path, "key"), message)
        elif not VARIABLE.fullmatch(variable):
            message = f"{variable!r} is no name of a variable: letters, digits and '_'"
            yield config.Diagnostic((*path, "key_env"), message)
        if key.client == pod_paths.CANARY_CLIENT or variable == pod_paths.CANARY_VARIABLE:
            message = f"{pod_paths.CANARY_CLIENT} and {pod_paths.CANARY_VARIABLE} are the probe's"
            yield config.Diagnostic(path, message)
    for index, model in enumerate(settings.models):
        if model.name == pod_paths.CANARY_MODEL:
            message = f"{model.name} is the readiness probe's: choose another name"
            yield config.Diagnostic(("models", index, "name"), message)


def _gateway_port(settings: config.Config) -> Faults:
    port = pod_config.gateway_port(settings)
    if port < PORT_MIN:
        message = f"port {port}: pods run without root's rights, and listen from {PORT_MIN} on"
        yield config.Diagnostic(("gateway", "listen"), message)
    elif port in RESERVED_PORTS:
        message = f"port {port} is Ray's in each pod: choose another one, such as 8080"
        yield config.Diagnostic(("gateway", "listen"), message)


def _registry(settings: config.Config, *, is_served: bool) -> Faults:
    path = ("registry", "url")
    url = settings.registry.url or ""
    if url.startswith("postgresql"):
        if urlsplit(url).password:
            message = (
                "a ConfigMap is no place for secrets: leave the password out, and name its Secret "
                "in kubernetes.registry_secret"
            )
            yield config.Diagnostic(path, message)
        return
    if is_served:
        message = (
            "--serve has two clusters beside each other during an upgrade, which can't share a "
            "SQLite file: give postgresql://…"
        )
        yield config.Diagnostic(path, message)
    if url and not _is_below(url.removeprefix("sqlite:///"), pod_paths.STATE_DIR):
        message = f"in pods only {pod_paths.STATE_DIR} can be written: leave registry.url out"
        yield config.Diagnostic(path, message)


def _files(settings: config.Config) -> Faults:
    if settings.cache.path and not _is_below(str(settings.cache.path), pod_paths.STATE_DIR):
        message = f"in pods only {pod_paths.STATE_DIR} can be written: leave cache.path out"
        yield config.Diagnostic(("cache", "path"), message)
    mounted = [str(volume.path) for volume in settings.kubernetes.volumes.values()]
    for path, uri in _sources(settings):
        file = _local_path(uri)
        if file is not None and not any(_is_below(file, folder) for folder in mounted):
            places = f"the folders of kubernetes.volumes ({', '.join(mounted) or 'none yet'})"
            message = f"{file} is not in the pods: local files are served from {places} alone"
            yield config.Diagnostic(path, message)


def _sources(settings: config.Config) -> Iterator[tuple[diagnostics.Path, str]]:
    for index, model in enumerate(settings.models):
        yield ("models", index, "uri"), model.uri
    for index, repository in enumerate(settings.repositories):
        yield ("repositories", index), str(repository.path or repository.uri)
    for index, llm in enumerate(settings.llms):
        yield ("llms", index, "uri"), llm.uri
        for number, adapter in enumerate(llm.adapters):
            yield ("llms", index, "adapters", number, "uri"), adapter.uri


def _local_path(uri: str) -> str | None:
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    return unquote(rest.removeprefix("localhost")) if scheme.lower() == "file" else None


def _is_below(path: str, folder: str) -> bool:
    # `..` would lead out of the folder that the text begins with.
    parts = PurePosixPath(path).parts
    return ".." not in parts and PurePosixPath(path).is_relative_to(folder)


def _names(settings: config.Config) -> Faults:
    section = settings.kubernetes
    if not kube_names.is_dns_1123(section.namespace):
        message = f"{section.namespace!r} is no namespace: 63 lower-case letters, digits, '-'"
        yield config.Diagnostic((SECTION, "namespace"), message)
    named = {
        ("secret",): section.secret,
        ("registry_secret",): section.registry_secret,
        ("token_secret",): section.token_secret,
        ("gcs", "redis_secret"): section.gcs.redis_secret,
        ("head", "storage_class"): section.head.storage_class,
    }
    for path, name in named.items():
        if name and not kube_names.is_subdomain(name):
            message = f"{name!r} is no name of an object: lower-case letters, digits, '-' and '.'"
            yield config.Diagnostic((SECTION, *path), message)
    yield from group_rules.label_faults((SECTION, "clients"), section.clients or {})


def _volumes(settings: config.Config) -> Faults:
    paths: set[str] = set()
    for name, volume in settings.kubernetes.volumes.items():
        path = (SECTION, "volumes", name)
        if not kube_names.is_dns_1123(name):
            message = f"{name!r} is no name of a volume: 63 lower-case letters, digits, '-'"
            yield config.Diagnostic(path, message)
        if name in RESERVED_VOLUMES:
            yield config.Diagnostic(path, f"{name} is a volume of ours: choose another name")
        if not kube_names.is_subdomain(volume.claim):
            message = f"{volume.claim!r} is no name of a PersistentVolumeClaim"
            yield config.Diagnostic((*path, "claim"), message)
        folder = str(volume.path)
        hides = any(_is_below(folder, own) or _is_below(own, folder) for own in OWN_FOLDERS)
        if hides or ":" in folder or ".." in volume.path.parts:
            message = f"{folder} hides folders of the pod: mount it elsewhere, such as /models"
            yield config.Diagnostic((*path, "path"), message)
        if folder in paths:
            yield config.Diagnostic((*path, "path"), f"{folder} is another volume's too")
        paths.add(folder)
