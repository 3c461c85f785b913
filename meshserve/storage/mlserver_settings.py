"""MLServer's `model-settings.json`."""

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
"""Implementations whose files a runtime here loads. Any other is kept as it is, for a runtime of that name may be installed."""


def read(text: str | bytes) -> model_metadata.ModelDeclaration:
    """What the settings declare. Raises ValueError with what is wrong."""
    settings = json.loads(text)
    if not isinstance(settings, dict):
        raise ValueError("expected an object in {}")  # noqa: TRY004  # the text's fault, not the caller's
    parameters = settings.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError("parameters: expected an object in {}")  # noqa: TRY004
    rows = settings.get("max_batch_size")
    implementation = _text(settings, "implementation")
    return model_metadata.ModelDeclaration(
        name=_text(settings, "name"),
        version=_text(parameters, "version"),
        uri=_text(parameters, "uri"),
        runtime=RUNTIMES.get(implementation, implementation),
        inputs=_tensors(settings, "inputs"),
        outputs=_tensors(settings, "outputs"),
        max_batch_size=rows if isinstance(rows, int) and rows > 1 else None,
    )


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name}: expected a text, got {value!r}")
    return value or ""


def _tensors(settings: dict[str, object], name: str) -> tuple[model.TensorSpec, ...]:
    listed = settings.get(name) or []
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise ValueError(f"{name}: expected a list of objects")
    return tuple(
        model_metadata.tensor(each.get("name"), each.get("datatype"), each.get("shape"))
        for each in listed
    )
