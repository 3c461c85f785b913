"""Write deploy/base and deploy/overlays, a Kustomize base and its overlays, from deploy/configs.

    python -m tools.deploy            # write them
    python -m tools.deploy --check    # exit code 1 if they are out of date

An overlay has what its configuration makes beside the base's, as patches and as resources.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from meshserve import config
from meshserve.cli import manifest
from meshserve.kubernetes import manifest_yaml, manifests

Object = dict[str, Any]

DEPLOY = Path(__file__).parent.parent / "deploy"
BASE = "base"
HEADER = "# Written by `make deploy` from deploy/configs: change those.\n"
OPTIONS = manifests.ManifestOptions()


def build(name: str) -> dict[str, Object]:
    """Return the objects of deploy/configs/NAME.yaml by the names of their files."""
    settings, content = config.load_elsewhere(
        DEPLOY / "configs" / f"{name}.yaml", lambda read: manifests.faults(read, OPTIONS)
    )
    objects = manifests.build(settings, content, OPTIONS)
    return {manifest.file_name(one): one for one in objects}


def files() -> dict[str, str]:
    """Return the text of each file by its path below deploy/."""
    base = build(BASE)
    texts = _folder(BASE, dict(base), {"resources": list(base)})
    for path in sorted((DEPLOY / "configs").glob("*.yaml")):
        if path.stem != BASE:
            texts |= _overlay(path.stem, base)
    return texts


def _overlay(name: str, base: dict[str, Object]) -> dict[str, str]:
    wanted = build(name)
    added = {file: one for file, one in wanted.items() if file not in base}
    changed = {file: one for file, one in wanted.items() if file in base and one != base[file]}
    removed = {
        file: {**_identity(one), "$patch": "delete"}
        for file, one in base.items()
        if file not in wanted
    }
    kustomization = {
        "resources": ["../../base", *added],
        "patches": [{"path": file} for file in (*changed, *removed)],
    }
    return _folder(f"overlays/{name}", added | changed | removed, kustomization)


def _identity(one: Object) -> Object:
    metadata = {key: one["metadata"][key] for key in ("name", "namespace")}
    return {key: one[key] for key in ("apiVersion", "kind")} | {"metadata": metadata}


def _folder(folder: str, objects: dict[str, Object], kustomization: Object) -> dict[str, str]:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    documents = {**objects, manifest.KUSTOMIZATION: {**head, **kustomization}}
    return {
        f"{folder}/{name}": HEADER + manifest_yaml.dump(document)
        for name, document in documents.items()
    }


def stale() -> list[str]:
    """Return the files that differ from what would be written, or should not be there."""
    texts = files()
    written = {
        path.relative_to(DEPLOY).as_posix(): path.read_text()
        for folder in (BASE, "overlays")
        for path in (DEPLOY / folder).rglob("*.yaml")
    }
    return sorted(name for name in {*texts, *written} if texts.get(name) != written.get(name))


def main() -> None:
    """Write the files, or only check them."""
    out_of_date = stale()
    if "--check" in sys.argv:
        sys.exit(f"out of date, run `make deploy`: {', '.join(out_of_date)}" if out_of_date else 0)
    texts = files()
    for name in out_of_date:
        path = DEPLOY / name
        if name not in texts:
            path.unlink()
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(texts[name])
        print(f"deploy/{name}")


if __name__ == "__main__":
    main()
