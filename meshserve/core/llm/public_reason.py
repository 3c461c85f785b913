"""The reasons of failures as callers may hear them: without the paths of the server."""

from __future__ import annotations

import re

PATH = re.compile(r"(?<![\w/:.])/(?:[^\s/:'\"`,;()<>]+/)+([^\s/:'\"`,;()<>]*)")
"""An absolute path of two parts or more, and its last part; the paths of URLs are none."""


def for_callers(reason: str) -> str:
    """Return a reason in which each path is only its last part."""
    return PATH.sub(r"\1", reason)
