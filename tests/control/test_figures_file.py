from __future__ import annotations

from pathlib import Path

import pytest

from meshserve.control import figures_file
from meshserve.core.mesh import model_totals
from meshserve.core.values import model, model_figures


@pytest.fixture
def saved() -> model_totals.SavedTotals:
    figures = model_figures.ModelFigures()
    figures.record_answer(0.003, 10, 20)
    figures.record_failure(424)
    return model_totals.SavedTotals(
        {"default-0": (2**62, 5)}, figures, {model.ModelId('a"ö', "2"): figures}
    )


def test_totals_are_read_as_they_were_written(
    tmp_path: Path, saved: model_totals.SavedTotals
) -> None:
    folder = tmp_path / "not-yet"
    figures_file.FiguresFile(str(folder)).write(saved)
    assert figures_file.FiguresFile(str(folder)).read() == saved


def test_without_a_file_all_begins_at_zero(tmp_path: Path) -> None:
    assert figures_file.FiguresFile(str(tmp_path)).read() == model_totals.SavedTotals()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"bounds": [1, 2]}', "\x00" * 100, '{"bounds": null}']
)
def test_a_file_that_makes_no_sense_is_told_and_replaced(
    tmp_path: Path, saved: model_totals.SavedTotals, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / figures_file.NAME).write_text(text)
    kept = figures_file.FiguresFile(str(tmp_path))
    assert kept.read() == model_totals.SavedTotals()
    assert "begin anew" in caplog.text
    kept.write(saved)
    assert kept.read() == saved


def test_a_disk_that_takes_nothing_is_told(
    tmp_path: Path, saved: model_totals.SavedTotals, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    figures_file.FiguresFile(str(tmp_path / "file" / "below")).write(saved)
    assert "can't be kept" in caplog.text
