"""The verdict of a chaos run as text."""

from __future__ import annotations

from tests.chaos import oracle, run

SHOWN = 30


def text(verdict: run.Verdict) -> str:
    """Return a table of the faults, what every process holds, and everything that is wrong."""
    judge, order, pauses = verdict.judge, verdict.order, verdict.stalls
    summary = (
        f"seed {order.seed}, {order.time_s:g} s, {order.per_s:g} requests a second: "
        f"{judge.answered} right answers, slowest {judge.slowest_s:.2f} s, "
        f"{len(judge.wrong)} wrong, {len(judge.failures)} failures that nothing excuses, "
        f"{len(judge.stalled)} during {len(pauses)} stalls of the machine, "
        f"{sum(pause.end_s - pause.begin_s for pause in pauses):.1f} s in all"
    )
    lines = [summary, "", f"{'fault':22}{'count':>6}{'failed':>8}{'slowest':>9}{'back':>8}"]
    for fault in sorted(verdict.counts):
        felt = [known for known in judge.allowances if known.fault == fault]
        failed = sum(known.failed for known in felt)
        slowest_s = max((known.slowest_s for known in felt), default=0)
        back_s = max((known.back_s for known in felt), default=0)
        back = f"{back_s:.1f} s" if back_s else ""
        lines.append(f"{fault:22}{verdict.counts[fault]:>6}{failed:>8}{slowest_s:>7.2f} s{back:>8}")
    lines += ["", *(f"{way}: {count}" for way, count in sorted(judge.ways.items()))]
    lines += ["", *verdict.table]
    lines += _listed("WRONG", judge.wrong) + _listed("FAILED", _grouped(judge.failures))
    lines += _listed("FAILED by a stall", _grouped(judge.stalled))
    lines += _listed("SLOW", judge.slow)
    return "\n".join(lines + _listed("LEFT", verdict.leaks))


def _grouped(failures: list[oracle.Failure]) -> list[str]:
    """Return the first failure of each text, and how many have that text."""
    groups: dict[str, list[str]] = {}
    for failure in failures:
        groups.setdefault(failure.text.rpartition("): ")[2], []).append(failure.text)
    return [
        f"{group[0]} … {len(group)} times, {len({_subject(item) for item in group})} models"
        for group in groups.values()
    ]


def _subject(failure: str) -> str:
    return failure.partition(" by ")[0].rpartition(": ")[2]


def _listed(title: str, items: list[str]) -> list[str]:
    shown = [f"{title}: {item}" for item in items[:SHOWN]]
    return shown if len(items) <= SHOWN else [*shown, f"… {len(items) - SHOWN} more"]
