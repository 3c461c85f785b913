"""The loop of a client that is driven by lines of JSON: a method and its arguments, an answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def serve(client: object) -> None:
    """Answer each line of stdin by a line on stdout, until stdin ends.

    What a client's library prints goes to stderr.
    """
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(_answer(getattr(client, asked["method"]), asked["arguments"])))
        answers.write("\n")
        answers.flush()


def _answer(method: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"answer": method(**arguments)}
    except Exception as error:  # noqa: BLE001 - every library has errors of its own
        return {"error": f"{type(error).__name__}: {error}"}
