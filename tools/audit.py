"""Audit the environment where advisories can be reached, else say plainly that nothing was audited.

`python -m tools.audit` runs `make audit`, which asks PyPI about each package by its version.
Mirrors of PyPI often lack these pages or the advisories in them, and know of no vulnerability then.
So a package that is known to be vulnerable is asked about first.
"""

from __future__ import annotations

import subprocess
import sys

import httpx

INDEX = "https://pypi.org"
VULNERABLE = "/pypi/pycrypto/2.6.1/json"
"""Source of the format: https://docs.pypi.org/api/json/#known-vulnerabilities."""
LIMIT_S = 20.0


def reason_against(index: str) -> str:
    """Return why an index can't tell what is vulnerable, "" if it can."""
    url = index + VULNERABLE
    try:
        answer = httpx.get(url, timeout=LIMIT_S).raise_for_status()
        has_advisories = bool(answer.json().get("vulnerabilities"))
    except (httpx.HTTPError, ValueError) as error:
        return f"{url}: {error}"
    return "" if has_advisories else f"{url} has no advisories, and there are some"


def main() -> int:
    """Return the exit code of the audit, 0 if there could be none."""
    reason = reason_against(INDEX)
    if reason:
        sys.stdout.write(f"NOTHING WAS AUDITED for known vulnerabilities: {reason}\n")
        return 0
    return subprocess.run(["make", "audit"], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
