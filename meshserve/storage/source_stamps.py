"""Find the local files of models that have changed since they were declared, and have settled."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from meshserve import errors
from meshserve.storage import content, model_uri, settling


def find_changed(
    known: Collection[tuple[str, str]], *, is_said_whole: bool
) -> dict[tuple[str, str], str]:
    """Return the URIs with stamps of the files that are not as they are known.

    `known` has plain URIs, each with the stamped one that is declared or "". What is being written
    is left out, and so is what can't be read, and what is no local file. With `is_said_whole` a
    file that changed a moment ago counts as written, unless somebody has it open for writing.
    """
    now_ns, settle_ns = time.time_ns(), 0 if is_said_whole else settling.SETTLE_NS
    changed = {}
    for uri, before in known:
        try:
            stamped = _settled(uri, before, now_ns, settle_ns)
        except (OSError, errors.LoadFailed):
            # The files may be on other nodes alone, or be away for a moment.
            continue
        if stamped != before:
            changed[uri, before] = stamped
    return changed


def _settled(uri: str, before: str, now_ns: int, settle_ns: int) -> str:
    """Return the stamped URI of the present files, or `before` while they are being written."""
    source = model_uri.parse(uri)
    # A URI that was given with a stamp is a repository's.
    if source.kind != "local" or source.stamp:
        return before
    path = Path(source.path)
    stamped = model_uri.stamped(source.path, content.stamp(path).text)
    if stamped == before or settling.is_being_written(path, now_ns, settle_ns):
        return before
    return stamped
