"""Rules for what people read: lengths, links, and examples that are those which the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import onnxruntime
import pytest

from meshserve import config

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "first_answer"
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "bench" / "README.md"})
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
PARTS = ("Context", "Decision", "Consequences")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
NAMED_FILE = re.compile(r"`([\w./]+/[\w.]+\.(?:py|lua|yaml|json))`")
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def lines(name: str) -> list[str]:
    return (ROOT / name).read_text().splitlines()


def snippets(language: str) -> list[str]:
    fences = FENCE.findall((ROOT / "README.md").read_text())
    return [text for written_in, text in fences if written_in == language]


def test_the_readme_is_read_in_minutes() -> None:
    assert len(lines("README.md")) <= 150


def test_the_architecture_is_one_page() -> None:
    page = lines("ARCHITECTURE.md")
    assert len(page) <= 120
    assert max(map(len, page)) <= 100


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    names = NAMED_FILE.findall(page.read_text())
    assert [
        name
        for name in names
        if not any((top / name).exists() for top in (ROOT, ROOT / "meshserve"))
    ] == []


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.stem)
def test_a_decision_has_its_form(decision: Path) -> None:
    text = decision.read_text()
    assert len(text.splitlines()) <= 40
    assert text.startswith(f"# {decision.name[:4]}")
    heads = re.findall(r"^(?:## |\*\*)(\w+)", text, re.MULTILINE)
    assert [head for head in heads if head in PARTS] == list(PARTS)


def test_operations_names_metrics_that_exist() -> None:
    named = set(re.findall(r"\bmeshserve_[a-z_]+", (ROOT / "docs" / "operations.md").read_text()))
    code = "\n".join(path.read_text() for path in (ROOT / "meshserve").rglob("*.py"))
    # The library of Prometheus adds the ending of counters.
    assert {
        name for name in named if name[len("meshserve_") :].removesuffix("_total") not in code
    } == set()


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    assert [path.name for path in DECISIONS if f"({path.name})" not in index] == []


def test_the_readmes_first_program_is_the_examples() -> None:
    assert snippets("python")[0] == (EXAMPLE / "ask.py").read_text()


def test_the_readmes_configurations_are_good(tmp_path: Path) -> None:
    for number, text in enumerate(snippets("yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text)
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "digits.onnx").touch()
        (tmp_path / "repository").mkdir(exist_ok=True)
        loaded = config.load(path)
        assert loaded.models or loaded.llms


def test_the_examples_model_answers_as_the_readme_says() -> None:
    loaded = config.load(EXAMPLE / "config.yaml")
    session = onnxruntime.InferenceSession(
        EXAMPLE / "iris.onnx", providers=["CPUExecutionProvider"]
    )
    label, probabilities = session.run(None, {"features": [[5.1, 3.5, 1.4, 0.2]]})
    assert [model.name for model in loaded.models] == ["iris"]
    assert label.tolist() == [0]
    assert probabilities[0][0] == pytest.approx(0.98157942)
