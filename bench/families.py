"""Kinds of models that bench/density.py fills a worker with: many of each, all different."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops import io as skops_io

from bench import samples, tiny, torch_models

Write = Callable[[Path, int], Iterator[Path]]
Ask = Callable[[Path], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Family:
    """One kind. `write` writes different models; `ask` returns rows and right answers."""

    name: str
    write: Write
    ask: Ask


def tiny_models(folder: Path, count: int) -> Iterator[Path]:
    """Write ONNX models: one is built, others get other weights, which is quicker than building."""
    tiny.write(folder / "tiny-0.onnx", 0)
    content, built = (folder / "tiny-0.onnx").read_bytes(), tiny.weights(0)["w1"].tobytes()
    yield folder / "tiny-0.onnx"
    for number in range(1, count):
        path = folder / f"tiny-{number}.onnx"
        path.write_bytes(content.replace(built, tiny.weights(number)["w1"].tobytes()))
        yield path


def sklearn_models(folder: Path, count: int) -> Iterator[Path]:
    """Write scaling and logistic regression in skops' format, each fitted with another strength."""
    rows = samples.iris()
    for number in range(count):
        path = folder / f"iris-{number}.skops"
        skops_io.dump(
            make_pipeline(StandardScaler(), LogisticRegression(C=1 + number / 100)).fit(
                rows.x, rows.y
            ),
            path,
        )
        yield path


def xgboost_models(folder: Path, count: int) -> Iterator[Path]:
    """Write boosters of sixty trees of depth three, each with another learning rate."""
    rows = samples.breast_cancer()
    for number in range(count):
        path = folder / f"cancer-{number}.ubj"
        rate = 0.3 / (1 + number / 1000)
        xgboost.XGBClassifier(n_estimators=60, max_depth=3, learning_rate=rate, n_jobs=1).fit(
            rows.x, rows.y
        ).save_model(path)
        yield path


def torch_family(size_bytes: int) -> Write:
    """Return the family of six wide exported layers."""

    def write(folder: Path, count: int) -> Iterator[Path]:
        first = folder / "wide-0.pt2"
        torch_models.write(first, torch_models.WIDE, size_bytes)
        place = first.read_bytes().index(torch_models.first_weights(first))
        yield first
        for number in range(1, count):
            path = folder / f"wide-{number}.pt2"
            shutil.copyfile(first, path)
            with path.open("r+b") as stream:
                stream.seek(place)
                stream.write(np.float32(number).tobytes())
            yield path

    return write


def asks(rows: Callable[[], np.ndarray], ask: Callable[[Path, np.ndarray], np.ndarray]) -> Ask:
    """Return a function that gives the same rows for every model of a family."""
    return lambda path: (rows(), ask(path, rows()))


def wide_rows(size_bytes: int) -> Callable[[], np.ndarray]:
    """Return a function that returns two FP32 rows, of shape (2, width)."""
    return lambda: torch_models.Wide.rows_of(torch_models.Wide.width_of(size_bytes))


TINY = Family(
    "tiny MLP, ONNX",
    tiny_models,
    asks(lambda: np.linspace(-1, 1, tiny.INPUTS, dtype=np.float32)[None], samples.ask_onnx),
)
SKLEARN = Family(
    "scikit-learn", sklearn_models, asks(lambda: samples.iris().held_x[:2], samples.ask_skops)
)
XGBOOST = Family(
    "XGBoost, 60 trees",
    xgboost_models,
    asks(lambda: samples.breast_cancer().held_x[:2], samples.ask_xgboost),
)
MEDIUM = Family(
    "torch, 10 MB", torch_family(10 << 20), asks(wide_rows(10 << 20), samples.ask_torch)
)
BIG = Family(
    "torch, 400 MB", torch_family(400 << 20), asks(wide_rows(400 << 20), samples.ask_torch)
)
FAMILIES = {family.name: family for family in (TINY, SKLEARN, XGBOOST, MEDIUM, BIG)}
