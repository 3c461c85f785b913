"""`meshserve manifest`: what an operator of Kubernetes applies."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from meshserve import config, errors
from meshserve.kubernetes import manifest_yaml, manifests

KUSTOMIZATION = "kustomization.yaml"


def manifest(
    file: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config.yaml.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Write a file for each object there, and a kustomization.yaml.",
        ),
    ] = None,
    is_served: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="A RayService instead of a RayCluster: KubeRay upgrades it without downtime.",
        ),
    ] = False,
    has_inference_pool: Annotated[
        bool,
        typer.Option(
            "--inference-pool", help="Add an InferencePool, for the Gateway API's extension."
        ),
    ] = False,
) -> None:
    """Print the Kubernetes manifests of a configuration, for KubeRay 1.7."""
    options = manifests.ManifestOptions(is_served, has_inference_pool)
    settings, content = config.load_elsewhere(
        file, lambda settings: manifests.faults(settings, options)
    )
    # All of them first: nothing is printed of a configuration that is refused.
    objects = manifests.build(settings, content, options)
    if folder is None:
        sys.stdout.write(manifest_yaml.dump_all(objects))
    else:
        _write(folder, objects)


def _write(folder: Path, objects: Sequence[dict[str, Any]]) -> None:
    """Write a file for each object, and one that names them. Raises MeshError if that fails."""
    texts = {file_name(manifest): manifest for manifest in objects}
    namespace = objects[0]["metadata"]["namespace"]
    texts[KUSTOMIZATION] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": list(texts),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, manifest in texts.items():
            text = manifest_yaml.dump(manifest)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise errors.MeshError(f"{error.filename}: {error.strerror}") from None


def file_name(manifest: dict[str, Any]) -> str:
    """Return the name of an object's file, such as `service-mesh-gateway.yaml`."""
    return f"{manifest['kind'].lower()}-{manifest['metadata']['name']}.yaml"
