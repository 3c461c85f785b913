from __future__ import annotations

import numpy as np
import pytest

from meshserve import errors
from meshserve.core.values import model
from meshserve.runtimes import runtime_lookup
from meshserve.testing import artifact_at, check_runtime

SPEC = model.ModelSpec(model.ModelId("iris"), "file:///models/iris.centroids")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "iris.centroids"
    path.write_text("setosa,1.4,0.2\nversicolor,4.3,1.3\nvirginica,5.5,2.0\n")
    return path


def test_the_runtime_keeps_the_contract(path):
    rows = np.array([[1.4, 1.2], [5.5, 2.0], [4.3, 1.3]])
    expected = {
        "label": np.array([b"setosa", b"virginica", b"versicolor"], dtype=object),
        "distance": np.array([1.0, 0.0, 0.0]),
    }
    artifact = artifact_at(path)
    runtime = runtime_lookup.find(SPEC, artifact)  # by the entry point, as a worker finds it
    check_runtime(runtime, artifact, spec=SPEC, inputs={"features": rows}, expected=expected)


def test_a_broken_table_says_why(path):
    path.write_text("setosa,1.4,wide\n")
    artifact = artifact_at(path)
    with pytest.raises(errors.LoadFailed, match=r"is not a table of centroids: .*wide"):
        runtime_lookup.by_name("centroids").load(artifact, SPEC, "cpu")
