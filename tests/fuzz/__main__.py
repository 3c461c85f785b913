"""Fuzz the targets with coverage, one after the other: `python -m tests.fuzz MINUTES [TARGET …]`.

Each target runs in a process of its own under atheris (libFuzzer), from its seeds and the corpus.
Findings are written to `fuzz-findings/`; copy one into `tests/fuzz/corpus/TARGET/` once its cause
is mended, and the tests replay it. What was learned, the grown corpus, is kept in `.fuzz/`.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.fuzz import seeds, targets

CORPUS = Path(__file__).parent / "corpus"
PACKED = "grown.zip"
"""Of what an hour of fuzzing has learned, up to 40 inputs of up to 1 KiB."""

GROWN = Path(".fuzz")
FINDINGS = Path("fuzz-findings")
RUN_S_MAX = 20
MEMORY_MIB_MAX = 2048
BYTES_MAX = 1 << 16


def kept(name: str) -> list[bytes]:
    """Return what the corpus has for a target: findings, and in `grown.zip` what reaches more."""
    files = sorted((CORPUS / name).glob("*"))
    findings = [file.read_bytes() for file in files if file.name != PACKED]
    if not (CORPUS / name / PACKED).exists():
        return findings
    with zipfile.ZipFile(CORPUS / name / PACKED) as packed:
        return findings + [packed.read(member) for member in packed.namelist()]


def main(words: list[str]) -> int:
    """Fuzz each target for its share of the minutes; return 1 if there were findings."""
    minutes, names = float(words[0]), words[1:] or list(targets.TARGETS)
    good = seeds.by_target()
    failed = []
    for name in names:
        sys.stdout.write(f"\n=== {name}\n")
        sys.stdout.flush()
        grown, findings = GROWN / name, FINDINGS / name
        for folder in (grown, findings):
            folder.mkdir(parents=True, exist_ok=True)
        for number, content in enumerate([*good[name], *kept(name)]):
            (grown / f"seed-{number}").write_bytes(content)
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "tests.fuzz.one", name),
                *(grown, f"-artifact_prefix={findings}/"),
                f"-max_total_time={max(1, round(minutes * 60 / len(names)))}",
                *(f"-timeout={RUN_S_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}"),
                *(f"-max_len={BYTES_MAX}", "-print_final_stats=1", "-verbosity=0"),
            ],
            check=False,
        )
        if ended.returncode:
            failed.append(name)
    sys.stdout.write(f"\nfindings: {', '.join(failed) or 'none'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
