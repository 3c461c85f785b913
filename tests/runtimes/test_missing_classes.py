from __future__ import annotations

import importlib
import sys
from pathlib import Path

import joblib
import pytest

from meshserve import errors
from tests.runtimes import contract


def test_a_module_that_was_edited_after_its_import_needs_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "edited_module.py"
    with_class = (
        "class Own:\n    n_features_in_ = 1\n"
        "    def predict(self, rows):\n        return rows[:, 0]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    source.write_text(with_class)
    module = importlib.import_module("edited_module")
    joblib.dump(module.Own(), tmp_path / "model.joblib")
    # As in a worker that imported the module before the class was added.
    del module.Own
    try:
        with pytest.raises(errors.LoadFailed, match=r"whose file has it now.*restart the mesh"):
            contract.load(tmp_path / "model.joblib", trust=True)
        source.write_text("pass\n")
        with pytest.raises(errors.LoadFailed, match="install the version of the module"):
            contract.load(tmp_path / "model.joblib", trust=True)
    finally:
        del sys.modules["edited_module"]
