"""Models of scikit-learn, XGBoost and LightGBM in the folders of MLServer, KServe, ModelMesh."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import pandas as pd
import xgboost
from sklearn import svm
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

VERSION = "v0.1.0"
SEED = 3
MUSHROOM_WIDTH = 126

Facts = dict[str, Any]


def write(top: Path) -> Facts:
    """Write all models, and return the libraries' own answers and the rows that they are for."""
    facts: Facts = {}
    _digits(top, facts)
    _mushrooms(top, facts)
    _iris(top, facts)
    _houses(top, facts)
    _classes(top)
    return facts


def settings(folder: Path, name: str, implementation: str, uri: str = "", **more: Any) -> Path:
    """Write an MLServer model's model-settings.json and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {"uri": uri, "version": VERSION} if uri else {}
    document = {"name": name, "implementation": implementation, "parameters": parameters, **more}
    (folder / "model-settings.json").write_text(json.dumps(document))
    return folder


def _digits(top: Path, facts: Facts) -> None:
    """Write MLServer's and ModelMesh's example for scikit-learn: digits by a support vector."""
    rows, labels = load_digits(return_X_y=True)
    half = len(rows) // 2
    classifier = svm.SVC(gamma=0.001).fit(rows[:half], labels[:half])
    home = settings(
        top / "mlserver" / "mnist-svm",
        "mnist-svm",
        "mlserver_sklearn.SKLearnModel",
        "./mnist-svm.joblib",
    )
    joblib.dump(classifier, home / "mnist-svm.joblib")
    bare = top / "modelmesh" / "mnist-svm"
    bare.mkdir(parents=True)
    joblib.dump(classifier, bare / "model.joblib")
    facts["digits"] = rows[half : half + 3].tolist()
    facts["digits/predict"] = classifier.predict(rows[half : half + 3]).tolist()


def _mushrooms(top: Path, facts: Facts) -> None:
    """Write the examples for XGBoost and LightGBM: 126 columns of zeros and ones, two classes."""
    random = np.random.default_rng(SEED)
    rows = (random.random((400, MUSHROOM_WIDTH)) < 0.2).astype(np.float32)
    labels = (rows[:, 3] + rows[:, 40] * 2 + rows[:, 77] > 1).astype(np.float32)
    quiet = {"nthread": 1, "max_depth": 3, "eta": 1, "objective": "binary:logistic"}
    booster = xgboost.train(quiet, xgboost.DMatrix(rows, label=labels), 4)
    forest = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_threads": 1},
        lightgbm.Dataset(rows, labels),
        5,
    )
    home = settings(
        top / "mlserver" / "mushroom-xgboost",
        "mushroom-xgboost",
        "mlserver_xgboost.XGBoostModel",
        "./mushroom-xgboost.json",
    )
    booster.save_model(home / "mushroom-xgboost.json")
    for name in ("xgboost/mushroom", "lightgbm/mushroom"):
        (top / "modelmesh" / name).mkdir(parents=True)
    booster.save_model(top / "modelmesh" / "xgboost" / "mushroom" / "model.json")
    forest.save_model(top / "modelmesh" / "lightgbm" / "mushroom" / "model.bst")
    _fil(top / "fil" / "xgboost-fil", "xgboost_json", 1).joinpath("xgboost.json").write_bytes(
        bytes(booster.save_raw("json"))
    )
    forest.save_model(_fil(top / "fil" / "lightgbm-fil", "lightgbm", 1) / "model.txt")
    facts["mushrooms"] = rows[:3].tolist()
    facts["mushrooms/xgboost"] = booster.predict(xgboost.DMatrix(rows[:3])).tolist()
    facts["mushrooms/lightgbm"] = np.asarray(forest.predict(rows[:3])).tolist()


def _fil(folder: Path, model_type: str, width: int) -> Path:
    """Write the config.pbtxt of Triton's forest backend; return the folder of the version."""
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(
        textwrap.dedent(f"""
            name: "{folder.name}"
            backend: "fil"
            max_batch_size: 8192
            input [ {{ name: "input__0" data_type: TYPE_FP32 dims: [ {MUSHROOM_WIDTH} ] }} ]
            output [ {{ name: "output__0" data_type: TYPE_FP32 dims: [ {width} ] }} ]
            instance_group [ {{ kind: KIND_CPU }} ]
            parameters [
              {{ key: "model_type" value: {{ string_value: "{model_type}" }} }},
              {{ key: "predict_proba" value: {{ string_value: "false" }} }},
              {{ key: "output_class" value: {{ string_value: "false" }} }}
            ]
        """)
    )
    return folder / "1"


def _iris(top: Path, facts: Facts) -> None:
    """Write KServe's example: iris by each library, and MLServer's of LightGBM."""
    rows, labels = load_iris(return_X_y=True)
    asked = np.array([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]])
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, labels)
    kserve = top / "kserve"
    for name in ("sklearn-iris", "xgboost-iris", "lightgbm-iris", "lightgbm-frame"):
        (kserve / name).mkdir(parents=True)
    joblib.dump(classifier, kserve / "sklearn-iris" / "model.joblib")
    booster = xgboost.XGBClassifier(n_estimators=3, max_depth=3, n_jobs=1).fit(rows, labels)
    booster.get_booster().save_model(kserve / "xgboost-iris" / "model.ubj")
    parameters = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    forest = lightgbm.train(parameters, lightgbm.Dataset(rows, labels), 3)
    forest.save_model(kserve / "lightgbm-iris" / "model.bst")
    names = ["sepal_width_(cm)", "petal_length_(cm)", "petal_width_(cm)", "sepal_length_(cm)"]
    framed = lightgbm.train(
        parameters, lightgbm.Dataset(rows[:, [1, 2, 3, 0]], labels, feature_name=names), 3
    )
    framed.save_model(kserve / "lightgbm-frame" / "model.bst")
    home = settings(
        top / "mlserver" / "iris-lgb",
        "iris-lgb",
        "mlserver_lightgbm.LightGBMModel",
        "./iris-lightgbm.bst",
    )
    forest.save_model(home / "iris-lightgbm.bst")
    facts["iris"] = asked.tolist()
    facts["iris/sklearn"] = classifier.predict(asked).tolist()
    facts["iris/sklearn/probabilities"] = classifier.predict_proba(asked).tolist()
    facts["iris/xgboost"] = np.asarray(
        booster.get_booster().predict(xgboost.DMatrix(asked.astype(np.float32)))
    ).tolist()
    facts["iris/lightgbm"] = np.asarray(forest.predict(asked)).tolist()
    first = np.array([[5.1, 3.5, 1.4, 0.2]])
    facts["iris/frame"] = np.asarray(framed.predict(first[:, [1, 2, 3, 0]])).tolist()


def _houses(top: Path, facts: Facts) -> None:
    """Write KServe's mixed example: a pipeline that takes a data frame of texts and numbers."""
    frame = pd.DataFrame(
        {
            "MSZoning": ["RL", "RM", "RL", "FV"] * 10,
            "LotArea": range(8000, 8400, 10),
            "YearBuilt": [1990, 2003, 1970, 2010] * 10,
        }
    )
    is_dear = (frame.LotArea + 10 * (frame.YearBuilt - 1990) > 8200) * 1
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["MSZoning"]),
        (StandardScaler(), ["LotArea", "YearBuilt"]),
    )
    pipeline = make_pipeline(columns, LogisticRegression()).fit(frame, is_dear)
    (top / "kserve" / "mixed").mkdir(parents=True)
    joblib.dump(pipeline, top / "kserve" / "mixed" / "model.joblib")
    row = {"MSZoning": "RL", "LotArea": 8450, "YearBuilt": 2003}
    facts["houses"] = row
    facts["houses/predict"] = pipeline.predict(pd.DataFrame([row])).tolist()


HELLO = """
    import json
    from typing import Any, Dict

    from mlserver import MLModel, types
    from mlserver.codecs import StringCodec

    class Hello(MLModel):
        async def load(self) -> bool:
            self.greeting = "Hello"
            return await super().load()

        async def predict(self, payload: types.InferenceRequest) -> types.InferenceResponse:
            asked = {
                entry.name: json.loads("".join(self.decode(entry, default_codec=StringCodec)))
                for entry in payload.inputs
            }
            text = json.dumps({"asked": asked, "said": self.greeting}).encode()
            return types.InferenceResponse(
                id=payload.id,
                model_name=self.name,
                model_version=self.version,
                outputs=[
                    types.ResponseOutput(
                        name="echo_response",
                        shape=[1],
                        datatype="BYTES",
                        data=[text],
                        parameters=types.Parameters(content_type="str"),
                    )
                ],
            )
"""

FACTORS = """
    import json

    import numpy as np
    from mlserver import MLModel
    from mlserver.codecs import decode_args
    from mlserver.utils import get_model_uri

    class Factors(MLModel):
        async def load(self) -> bool:
            with open(await get_model_uri(self._settings)) as file:
                self.factor = json.load(file)["factor"]
            return True

        @decode_args
        async def predict(self, age: np.ndarray, marriage: np.ndarray) -> np.ndarray:
            return age * self.factor + marriage
"""


def _classes(top: Path) -> None:
    """Write models that are classes of MLServer's `MLModel`, after its custom examples."""
    specs: Mapping[str, Any] = {
        "inputs": [{"name": "echo_request", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "echo_response", "datatype": "BYTES", "shape": [-1]}],
    }
    home = settings(top / "mlserver" / "hello", "hello", "hellos.Hello", **specs)
    (home / "hellos.py").write_text(textwrap.dedent(HELLO))
    home = settings(top / "mlserver" / "bare-hello", "bare-hello", "bare.Hello")
    (home / "bare.py").write_text(textwrap.dedent(HELLO))
    home = settings(top / "mlserver" / "factors", "factors", "models.Factors", "./factors.json")
    (home / "models.py").write_text(textwrap.dedent(FACTORS))
    (home / "factors.json").write_text(json.dumps({"factor": 2.5}))
