"""The demo's models, trained on scikit-learn's bundled data with fixed seeds.

They are saved, and asked again through their own libraries.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime
import skl2onnx
import torch
import xgboost
from skl2onnx.common.data_types import FloatTensorType
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops import io as skops_io

from bench.diabetes_model import Model as DiabetesModel

SEED = 7


@dataclass(frozen=True)
class Rows:
    """One data set, cut in two. Features are float32, which every runtime takes without loss."""

    x: np.ndarray
    y: np.ndarray
    held_x: np.ndarray
    held_y: np.ndarray


@dataclass(frozen=True)
class Sample:
    """One model of the quick start.

    `train` writes the artifact; `ask` loads it with its own library and answers rows in process.
    """

    name: str
    runtime: str
    path: str
    rows: Callable[[], Rows]
    train: Callable[[Rows, Path], None]
    ask: Callable[[Path, np.ndarray], np.ndarray]


def cut(x: np.ndarray, y: np.ndarray) -> Rows:
    """Hold out a quarter of the rows; `x` and `y` have their rows first."""
    train_x, held_x, train_y, held_y = train_test_split(
        x.astype(np.float32), y, test_size=0.25, random_state=SEED
    )
    return Rows(train_x, train_y, held_x, held_y)


def digits() -> Rows:
    """Return 1,797 images of 8 × 8, ten classes, as rows of 64."""
    x, y = datasets.load_digits(return_X_y=True)
    return cut(x / 16, y)


def digit_images() -> Rows:
    """Return the same as images of shape (1, 8, 8)."""
    rows = digits()
    return Rows(rows.x.reshape(-1, 1, 8, 8), rows.y, rows.held_x.reshape(-1, 1, 8, 8), rows.held_y)


def breast_cancer() -> Rows:
    """Return 569 rows of 30, two classes."""
    return cut(*datasets.load_breast_cancer(return_X_y=True))


def wine() -> Rows:
    """Return 178 rows of 13, three classes."""
    return cut(*datasets.load_wine(return_X_y=True))


def iris() -> Rows:
    """Return 150 rows of 4, three classes."""
    return cut(*datasets.load_iris(return_X_y=True))


def diabetes() -> Rows:
    """Return 442 rows of 10, one number."""
    return cut(*datasets.load_diabetes(return_X_y=True))


def train_digits(rows: Rows, path: Path) -> None:
    """Train a multi-layer perceptron, exported to ONNX with plain tensors as outputs."""
    fitted = MLPClassifier((64,), max_iter=120, early_stopping=True, random_state=SEED).fit(
        rows.x, rows.y
    )
    inputs = [("pixels", FloatTensorType([None, rows.x.shape[1]]))]
    converted = skl2onnx.to_onnx(
        fitted, initial_types=inputs, options={id(fitted): {"zipmap": False}}, target_opset=17
    )
    path.write_bytes(converted.SerializeToString())


def ask_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    """Return ONNX Runtime's first output; `x` has its rows first."""
    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


class DigitsCnn(torch.nn.Module):
    """Two convolutions and a linear layer: [n, 1, 8, 8] → [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 16, 10),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits of the ten classes, of shape (n, 10)."""
        return self.layers(image)


def train_digits_cnn(rows: Rows, path: Path) -> None:
    """Train the convolutional network, exported with any number of images."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    network = DigitsCnn()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    x, y = torch.from_numpy(rows.x), torch.from_numpy(rows.y)
    for _ in range(12):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    exported = torch.export.export(
        network.eval(), (x[:2],), dynamic_shapes={"image": {0: torch.export.Dim("n")}}
    )
    torch.export.save(exported, path)


def ask_torch(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the exported program's output for images of shape (n, 1, 8, 8)."""
    with torch.inference_mode():
        return torch.export.load(path).module()(torch.from_numpy(x)).numpy()


def train_breast_cancer(rows: Rows, path: Path) -> None:
    """Train a booster, saved in XGBoost's binary format."""
    xgboost.XGBClassifier(n_estimators=60, max_depth=3, n_jobs=1, random_state=SEED).fit(
        rows.x, rows.y
    ).save_model(path)


def ask_xgboost(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the probability of the second class for each row."""
    return xgboost.Booster(model_file=path).inplace_predict(x)


def train_wine(rows: Rows, path: Path) -> None:
    """Train a booster, saved in LightGBM's text format."""
    parameters = {
        "objective": "multiclass",
        "num_class": 3,
        "min_data_in_leaf": 5,
        "seed": SEED,
        "num_threads": 1,
        "verbosity": -1,
    }
    lightgbm.train(parameters, lightgbm.Dataset(rows.x, rows.y), num_boost_round=40).save_model(
        path
    )


def ask_lightgbm(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the probabilities of the three classes for each row."""
    return np.asarray(lightgbm.Booster(model_file=path).predict(x))


def train_iris(rows: Rows, path: Path) -> None:
    """Train a scikit-learn pipeline, saved in skops' format, which holds no code."""
    skops_io.dump(make_pipeline(StandardScaler(), LogisticRegression()).fit(rows.x, rows.y), path)


def ask_skops(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the class of each row."""
    return np.asarray(skops_io.load(path, trusted=[]).predict(x))


def train_diabetes(rows: Rows, path: Path) -> None:
    """Train a ridge regression; its weights lie beside the user's class that applies them."""
    fitted = Ridge(alpha=0.1).fit(rows.x, rows.y)
    shutil.copyfile(Path(__file__).with_name("diabetes_model.py"), path)
    np.savez(
        path.with_name("weights.npz"),
        coefficients=fitted.coef_.astype(np.float32),
        intercept=np.float32(fitted.intercept_),
    )


def ask_diabetes(path: Path, x: np.ndarray) -> np.ndarray:
    """Return the class's own predictions, one for each row."""
    return DiabetesModel(path.parent, {}).predict({"features": x})["progression"]


SAMPLES = (
    Sample("digits", "onnx", "digits.onnx", digits, train_digits, ask_onnx),
    Sample("digits-cnn", "torch", "digits_cnn.pt2", digit_images, train_digits_cnn, ask_torch),
    Sample(
        "breast-cancer",
        "xgboost",
        "breast_cancer.ubj",
        breast_cancer,
        train_breast_cancer,
        ask_xgboost,
    ),
    Sample("wine", "lightgbm", "wine.txt", wine, train_wine, ask_lightgbm),
    Sample("iris", "sklearn", "iris.skops", iris, train_iris, ask_skops),
    Sample("diabetes", "python", "diabetes/model.py", diabetes, train_diabetes, ask_diabetes),
)


def decided(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return answers as they are scored, one for each row: numbers or classes.

    Classes come from labels, from one probability, or from one for each class.
    """
    if truth.dtype.kind == "f":
        return answers.reshape(-1)
    if answers.ndim > 1 and answers.shape[1] > 1:
        return answers.argmax(axis=1)
    flat = answers.reshape(-1)
    return flat if flat.dtype.kind in "iu" else (flat > 0.5).astype(np.int64)


def score(answers: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of right classes, or R² of numbers, over all rows."""
    measure = r2_score if truth.dtype.kind == "f" else accuracy_score
    return float(measure(truth, decided(answers, truth)))
