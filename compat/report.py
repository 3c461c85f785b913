"""Write the outcomes of a run into docs/compatibility.md."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

from compat import cases, own_suites, world
from tools import marked_text

PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"
COMMAND = "make compat"
CLIENTS = ("tritonclient", "grpcio-reflection", "httpx", "openai", "anthropic")
"""Clients of our own environment whose versions the page names."""

RESULT_HEAD = (
    "| peer | kind | made after | ran | passed | failed, and why | its own suite, unchanged |",
    "|---|---|---|---:|---:|---|---|",
)
REFUSAL_HEAD = ("| asked as by | what | as in | the error's text |", "|---|---|---|---|")


def write(outcomes: Sequence[cases.Outcome]) -> None:
    """Write both tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (
        ("results", results_table(outcomes)),
        ("refusals", refusals_table(outcomes)),
        ("clients", clients_line()),
    ):
        text = marked_text.replace(text, marked_text.begin(name, COMMAND), table)
    PAGE.write_text(text, encoding="utf-8")


def results_table(outcomes: Iterable[cases.Outcome]) -> str:
    """Return a row for each kind of each peer."""
    rows: dict[tuple[str, str], list[cases.Outcome]] = {}
    for outcome in outcomes:
        if not outcome.case.is_refusal:
            rows.setdefault((outcome.case.peer, outcome.case.kind), []).append(outcome)
    return "\n".join((*RESULT_HEAD, *(_row(*names, kept) for names, kept in rows.items())))


def _row(peer: str, kind: str, outcomes: Sequence[cases.Outcome]) -> str:
    failures = [outcome for outcome in outcomes if outcome.failure]
    reasons = sorted({f"{failed.case.name}: {failed.failure}" for failed in failures})
    why = f"{len(failures)}: {'; '.join(map(_cell, reasons))}" if failures else "0"
    own = own_suites.RUNS.get((peer, kind), "")
    counts = f"{len(outcomes)} | {len(outcomes) - len(failures)}"
    return f"| {peer} | {kind} | {_sources(outcomes)} | {counts} | {why} | {own} |"


def _sources(outcomes: Iterable[cases.Outcome]) -> str:
    return _cell("; ".join(dict.fromkeys(outcome.case.source for outcome in outcomes)))


def refusals_table(outcomes: Iterable[cases.Outcome]) -> str:
    """Return a row for each refusal, with the text that the mesh gave."""
    rows = [
        f"| {refused.case.peer} | {refused.case.kind}: {refused.case.name} "
        f"| {_cell(refused.case.source)} | {_cell(refused.failure or refused.text)} |"
        for refused in outcomes
        if refused.case.is_refusal
    ]
    return "\n".join((*REFUSAL_HEAD, *rows))


def clients_line() -> str:
    """Return a sentence with the versions of all clients."""
    ours = [f"{name} {metadata.version(name)}" for name in CLIENTS]
    theirs = [
        environment.packages[0].replace("==", " ") for environment in world.ENVIRONMENTS.values()
    ]
    python = platform.python_version()
    return f"Clients of the last run: {', '.join((*ours, *theirs))}; Python {python}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
