"""Read MLServer's `model-settings.json`."""

from __future__ import annotations

import json

from meshserve.core.values import model
from meshserve.storage import model_metadata

FILE = "model-settings.json"
RUNTIMES = {
    "mlserver_sklearn.SKLearnModel": "sklearn",
    "mlserver_xgboost.XGBoostModel": "xgboost",
    "mlserver_lightgbm.LightGBMModel": "lightgbm",
    "mlserver_onnx.OnnxModel": "onnx",
}
"""Our runtimes by MLServer's implementation.

Other names are kept: they are a third party's runtime, or with a dot a user's own class.
"""


def read(text: str | bytes) -> model_metadata.ModelDeclaration:
    """Return what the settings declare. Raises ValueError with what is wrong."""
    settings = json.loads(text)
    if not isinstance(settings, dict):
        raise ValueError("expected an object in {}")  # noqa: TRY004 the text's fault
    parameters = settings.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError("parameters: expected an object in {}")  # noqa: TRY004 the text's fault
    # MLServer joins requests from 2 on; 0 and 1 mean that it does not (mlserver/batching/hooks.py).
    rows_max = settings.get("max_batch_size")
    implementation = _text(settings, "implementation")
    # A class of the user's own, `module.Class`, finds its files by its settings, so it gets all.
    is_class = "." in implementation and implementation not in RUNTIMES
    return model_metadata.ModelDeclaration(
        name=_text(settings, "name"),
        version=_text(parameters, "version"),
        uri="" if is_class else _text(parameters, "uri"),
        runtime=RUNTIMES.get(implementation, implementation),
        inputs=_tensors(settings, "inputs"),
        outputs=_tensors(settings, "outputs"),
        max_batch_size=rows_max if isinstance(rows_max, int) and rows_max > 1 else None,
    )


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, got {value!r}")
    return value or ""


def _tensors(settings: dict[str, object], name: str) -> tuple[model.TensorSpec, ...]:
    entries = settings.get(name) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name}: expected a list of objects")
    return tuple(
        model_metadata.tensor(entry.get("name"), entry.get("datatype"), entry.get("shape"))
        for entry in entries
    )
