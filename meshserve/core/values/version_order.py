"""The order of versions: which one of a model is the newest.

Numbers count by value (`v0.10.0` is newer than `v0.9.0`, `2024-10-1` than `2024-9-1`), whatever
stands between them; a leading `v` means nothing. A release is newer than its pre-releases
(`1.0.0` than `1.0.0-rc1`, `1.0.0rc1` or `1.0.0-SNAPSHOT`), which follow https://semver.org.
Versions that begin with a word, such as `latest`, are older than all that begin with a number.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

PHASES: Mapping[str, int] = MappingProxyType(
    dict.fromkeys(("dev", "snapshot", "nightly", "canary"), 0)
    | dict.fromkeys(("a", "alpha"), 1)
    | dict.fromkeys(("b", "beta", "m", "milestone"), 2)
    | dict.fromkeys(("c", "rc", "cr", "pre", "preview"), 4)
)
"""Words of pre-releases, by how near the release is."""

OTHER_PHASE = 3
"""The phase of any other word in a pre-release."""

LATER_WORDS = frozenset({"post", "rev", "r", "p", "patch", "hotfix", "fix", "final", "ga", "sp"})
"""Words after a hyphen that name no pre-release, although semver.org would have it."""

_PREFIX = re.compile(r"v(er(sion)?)?[._ -]?(?=[0-9])")
_PART = re.compile(r"[0-9]+|[^\W0-9_]+")
_SEMANTIC = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+-(?P<word>[^\W0-9_]+)")

# A number sorts by its digits, because `int` refuses very long ones.
Part = tuple[int, int, str]
Key = tuple[int, tuple[Part, ...], int, tuple[Part, ...], str]


# Most models have the same few versions, and each declaration compares two: without the cache a
# registration takes 1.6 times as long (bench.scale --quick).
@functools.lru_cache(maxsize=4096)
def sort_key(version: str) -> Key:
    """Return the sort key of a version, the newest last.

    Different versions never have equal keys.
    """
    plain = version.lower()
    prefix = _PREFIX.match(plain)
    plain = plain[prefix.end() :] if prefix else plain
    parts = _PART.findall(plain)
    split = _length_of_release(plain, parts)
    release = [_release_part(part) for part in parts[:split]]
    # 1.0.0-rc1 is older than 1.0 as well.
    while release and release[-1] == _release_part("0"):
        release.pop()
    pre_release = tuple(_pre_release_part(part) for part in parts[split:])
    begins_with_number = int(bool(parts) and _is_number(parts[0]))
    return begins_with_number, tuple(release), int(not pre_release), pre_release, version


def newest(versions: Iterable[str]) -> str:
    """Return the last version in this order."""
    return max(versions, key=sort_key)


def _length_of_release(plain: str, parts: list[str]) -> int:
    """Return how many parts stand before those of the pre-release."""
    has_number = False
    for position, part in enumerate(parts):
        if _is_number(part):
            has_number = True
        elif has_number and _begins_pre_release(parts, position):
            return position
    semantic = _SEMANTIC.match(plain)
    return 3 if semantic and semantic["word"] not in LATER_WORDS else len(parts)


def _begins_pre_release(parts: list[str], position: int) -> bool:
    part = parts[position]
    if part not in PHASES:
        return False
    # 1.0b2 is a beta, but 1.0b follows 1.0a and 1.0.
    return len(part) > 1 or (position + 1 < len(parts) and _is_number(parts[position + 1]))


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def _release_part(part: str) -> Part:
    return _number(part, rank=1) if _is_number(part) else (0, 0, part)


def _pre_release_part(part: str) -> Part:
    if _is_number(part):
        return _number(part, rank=0)
    phase = PHASES.get(part, OTHER_PHASE)
    return 1, phase, part if phase == OTHER_PHASE else ""


def _number(digits: str, rank: int) -> Part:
    significant = digits.lstrip("0")
    return rank, len(significant), significant
