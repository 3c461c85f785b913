"""Writes the README's config reference from `meshserve.config`; with --check it only says whether it is up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from meshserve import config

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- config: written by `make readme` from meshserve/config -->", "<!-- end -->"


def with_reference(text: str) -> str:
    """The README with the reference of today."""
    written = f"{BEGIN}\n{config.reference_markdown().strip()}\n{END}"
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: written, text, flags=re.DOTALL
    )


def main() -> int:
    text = README.read_text()
    fresh = with_reference(text)
    if "--check" in sys.argv:
        return int(text != fresh)
    README.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main())
