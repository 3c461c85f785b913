import report
import results

from tests.bench.test_results import CHART, CLAIM, TABLE

TEXT = f"before\n{report.BEGIN}\nold\n{report.END}\nbetween\n<!-- end -->\nafter\n"
MACHINE = {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "python": "3.11"}


def saved(monkeypatch, folder, *names):
    monkeypatch.setattr(results, "ROOT", folder)
    for name in names:
        results.save(
            name, results.Found(3, {}, (CLAIM,), (TABLE,), (CHART,)), MACHINE, folder / "results"
        )
    return folder / "results"


def test_only_what_is_between_the_marks_is_written(monkeypatch, tmp_path):
    text = report.with_results(TEXT, saved(monkeypatch, tmp_path, "routing"))
    assert text.startswith(f"before\n{report.BEGIN}\n### Routing")
    assert text.endswith(f"{report.END}\nbetween\n<!-- end -->\nafter\n")
    assert "\nold\n" not in text


def test_writing_twice_changes_nothing(monkeypatch, tmp_path):
    folder = saved(monkeypatch, tmp_path, "routing", "cold")
    once = report.with_results(TEXT, folder)
    assert report.with_results(once, folder) == once


def test_a_section_says_what_where_when_and_how(monkeypatch, tmp_path):
    (section,) = report.sections(saved(monkeypatch, tmp_path, "routing"))
    assert "2 cores of A CPU, 8.0 GiB, Python 3.11" in section
    assert "medians of 3 rounds" in section
    assert "| speed | 200 req/s | ≥ 1.5 × | reached | other | 100 req/s | 2.00 × |" in section
    assert "![A chart](results/a-chart.svg)" in section
    assert "Not measured: c (not there)." in section


def test_sections_come_in_a_readers_order(monkeypatch, tmp_path):
    folder = saved(monkeypatch, tmp_path, "zebra", "scale", "cold", "routing")
    assert [path.stem for path in report.paths(folder)] == ["routing", "cold", "scale", "zebra"]


def test_charts_lie_beside_the_results(monkeypatch, tmp_path):
    folder = saved(monkeypatch, tmp_path, "routing")
    assert list(report.drawn(folder)) == [folder / "a-chart.svg"]


def test_bars_in_a_cell_do_not_end_it():
    assert report.markdown(("a", "b"), [("x|y", "1\n2")]).splitlines()[2] == "| x\\|y | 1 2 |"


def test_the_readme_has_the_results_of_today():
    text = report.README.read_text()
    assert report.BEGIN in text
    assert report.with_results(text, results.FOLDER) == text
    assert all(path.read_text() == drawn for path, drawn in report.drawn(results.FOLDER).items())
