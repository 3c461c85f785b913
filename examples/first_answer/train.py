"""Train the model of this example and write it beside this file.

The file is in the repository, so that a first answer needs neither scikit-learn nor skl2onnx.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skl2onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

rows, species = load_iris(return_X_y=True)
model = LogisticRegression(max_iter=1000).fit(rows.astype(np.float32), species)
exported = skl2onnx.to_onnx(
    model,
    initial_types=[("features", FloatTensorType([None, 4]))],
    options={"zipmap": False},
    target_opset=17,
)
Path(__file__).with_name("iris.onnx").write_bytes(exported.SerializeToString())
