"""Targets for archives that big libraries read, member by member.

The first line of the data is the number of a member of a good archive, the rest its content: bytes
of a whole archive would nearly all fail by their checksums. TorchScript has no target: it is code,
and torch ends the process when it runs some changed programs, as quarantines expect.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.runtimes import pytorch, sklearn

Members = list[tuple[str, bytes]]


@functools.cache
def good_skops() -> Members:
    """Return the members of a small model in skops' format."""
    import skops.io  # noqa: PLC0415 - seconds, for these targets alone
    from sklearn import linear_model, pipeline, preprocessing  # noqa: PLC0415

    rows = np.arange(12.0).reshape(6, 2)
    steps = preprocessing.StandardScaler(), linear_model.LogisticRegression()
    fitted = pipeline.make_pipeline(*steps).fit(rows, [0, 1, 0, 1, 0, 1])
    return _members(skops.io.dumps(fitted))


def _members(content: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def seeds(members: Members) -> list[bytes]:
    """Return an input that leaves the archive as it is, for each member."""
    return [b"%d\n" % number + content for number, (_, content) in enumerate(members)]


@functools.cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="ms-fuzz-"))


def _loaded(runtime: model_runtime.Runtime, name: str, members: Members, **options: Any) -> None:
    """Load an archive of these members: what can't be loaded is told as such."""
    path = _folder() / name
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members:
            archive.writestr(member, content)
    content = path.read_bytes()
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    artifact = model_runtime.Artifact(path, digest, len(content))
    spec = model.ModelSpec(model.ModelId("m"), str(path), runtime.name, **options)
    with contextlib.suppress(errors.LoadFailed):
        runtime.load(artifact, spec, "cpu").close()


def _changed(good: Callable[[], Members], data: bytes) -> Members:
    first, _, content = data.partition(b"\n")
    members = list(good())
    number = int(first) % len(members) if first.isdigit() and len(first) < 9 else 0
    members[number] = (members[number][0], content)
    return members


def skops_archive(data: bytes) -> None:
    """Load a skops file of which one member is another."""
    _loaded(sklearn.SklearnRuntime(), "m.skops", _changed(good_skops, data))


def exported_samples(data: bytes) -> None:
    """Check the sample inputs of an exported program, which are a pickle that must be plain."""
    names = ("m/archive_format", "m/archive_version", "m/data/sample_inputs/model.pt")
    contents = (b"pt2", b"0", data)
    _loaded(pytorch.TorchRuntime(), "m.pt2", list(zip(names, contents, strict=True)))
