"""The keys of one model and of one repository of models in config.yaml."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from meshserve.config import fields
from meshserve.core.values import desired, model, reserved_names


def _served_name(value: str) -> str:
    reason = reserved_names.reason_against(value)
    if reason:
        raise ValueError(reason)
    return value


ServedName = Annotated[fields.Name, AfterValidator(_served_name)]
"""A name that clients put into URLs."""


class TensorSection(fields.Section):
    """One input or output of a model."""

    name: fields.Name
    """Its name on the wire."""
    datatype: fields.Datatype
    """Its datatype in the Open Inference Protocol."""
    shape: tuple[Annotated[fields.Whole, Field(ge=-1)], ...]
    """Its dimensions with the batch first; -1 is any size."""

    def spec(self) -> model.TensorSpec:
        """Return the tensor as the core's value, with the same name, datatype and shape."""
        return model.TensorSpec(self.name, self.datatype, self.shape)


class ModelSection(fields.Section):
    """A model that is served. Only `name` and `uri` are needed."""

    name: ServedName
    """What clients call it."""
    uri: fields.Source
    """A file or folder (relative to this file), or `https://`, `s3://`, `gs://`, `az://`."""
    version: fields.Version = "1"
    """Its version. A client that names none gets the newest: `v0.10.0` is newer than `v0.9.0`."""
    runtime: fields.Text = ""
    """`onnx`, `torch`, `sklearn`, `xgboost`, `lightgbm`, `python` or a third party's. Default:
    inferred from the files."""
    pool: fields.Text = desired.DEFAULT_POOL
    """The pool that serves it."""
    pinned: fields.Flag = False
    """Load it at once and never evict it."""
    trust: fields.Flag = False
    """Allow artifacts that are code: pickle, joblib, Python."""
    checksum: fields.Text = Field(default="", pattern=fields.CHECKSUM)
    """`sha256:<hex>` that the fetched bytes must have."""
    load_timeout_s: fields.Seconds | None = None
    """How long its load may take. Default: its pool's."""
    isolate: fields.Isolation | None = None
    """`process`: in a process of its own, so that a crash takes down only this model; `none`: in
    the worker. Default: its pool's."""
    predict_timeout_s: fields.Duration | None = None
    """How long a prediction may take before it is answered with 504; 0 is no limit. Default: its
    pool's. In a process of its own the process is ended then."""
    batching: fields.Flag | None = None
    """Whether requests that arrive together may be run together. `true` promises that no row of
    the first dimension influences another. Default: only where that is known of the model."""
    max_batch_size: fields.Count = 256
    """How many rows are run together at most."""
    inputs: tuple[TensorSection, ...] = ()
    """Its inputs, if the files do not describe them."""
    outputs: tuple[TensorSection, ...] = ()
    """Its outputs, if the files do not describe them."""
    sample: fields.Sample = {}  # noqa: RUF012 - pydantic copies it
    """A request that it takes, as values by input, or a `.json` or `.npz` file of them (relative to
    this file). Only for models that refuse made-up inputs: it is run once at each load, which shows
    what the model returns."""
    # Nothing but JSON, because the configuration travels to the controller as JSON.
    options: dict[str, fields.Json] = {}  # noqa: RUF012 - pydantic copies it
    """Anything its runtime understands."""
    aliases: tuple[ServedName, ...] = ()
    """Other names for this version."""

    def spec(self, load_timeout_s: float, origin: model.Origin) -> model.ModelSpec:
        """Return the core's spec of the model.

        `load_timeout_s` is the default of its pool.
        """
        return model.ModelSpec(
            id=model.ModelId(self.name, self.version),
            uri=self.uri,
            runtime=self.runtime,
            pool=self.pool,
            pinned=self.pinned,
            trust=self.trust,
            checksum=self.checksum,
            load_timeout_s=self.load_timeout_s or load_timeout_s,
            batching=self.batching,
            max_batch_size=self.max_batch_size,
            inputs=tuple(tensor.spec() for tensor in self.inputs),
            outputs=tuple(tensor.spec() for tensor in self.outputs),
            options=self.options,
            # Sorted, because specs are compared: the order of keys must not load the model anew.
            sample=json.dumps(self.sample, sort_keys=True) if self.sample else "",
            isolate=self.isolate or "",
            predict_timeout_s=self.predict_timeout_s,
            origin=origin,
        )

    def desired_aliases(self) -> tuple[desired.DesiredAlias, ...]:
        """Return the model's aliases as the core's values, declared by the configuration."""
        return tuple(
            desired.DesiredAlias(alias, self.name, self.version, model.FROM_CONFIG)
            for alias in self.aliases
        )


class RepositorySection(fields.Section):
    """A place with a folder for each model, versions as sub-folders, or a file for each model."""

    path: fields.Folder | None = None
    """A local folder. Give this or `uri`."""
    uri: fields.Source | None = None
    """The folder as `file://`. Buckets are not followed: list their models in `models`."""
    watch: fields.Flag = True
    """Whether changes of the folder are applied while the mesh runs."""
    pool: fields.Text = desired.DEFAULT_POOL
    """The pool that serves its models."""
    trust: fields.Flag = False
    """Allow models that are code: pickle, joblib, Python."""

    @model_validator(mode="after")
    def _has_one_place(self) -> RepositorySection:
        if (self.path is None) == (self.uri is None):
            raise ValueError("give path or uri, and not both")
        # Accepted, it would serve nothing.
        if self.uri is not None and "://" in self.uri and not self.uri.startswith("file://"):
            raise ValueError(
                f"{self.uri} can't be followed, only folders on this machine's disk: "
                "list the models that are elsewhere in `models`"
            )
        return self

    def settings(self) -> desired.RepositorySettings:
        """Return the repository as the core's value."""
        place = str(self.path or self.uri)
        return desired.RepositorySettings(place, self.watch, self.pool, self.trust)
