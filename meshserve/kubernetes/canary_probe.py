"""Whether a prediction passes through the gateway of this pod: its readiness probe.

    python -I -m meshserve.kubernetes.canary_probe PORT [FOLDER_OF_KEYS]

The exit code is 0 if the canary model gave the right answer. It imports little, because each pod
runs it every few seconds.
"""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any

from meshserve.kubernetes import pod_paths
from meshserve.protocol import paths

TIMEOUT_S = 4.0
QUESTIONS = 1 << 20


def ask(port: int, key: str, number: float) -> str:
    """Send `number` to the canary model at 127.0.0.1; return what is wrong with the answer.

    Before that the gateway is asked whether it is ready: while its node is drained it answers all
    the same. The model adds 1 to the number: an answer that was kept from an earlier question is
    wrong.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [number]}]}
    headers = {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
    path = f"/v2/models/{pod_paths.CANARY_MODEL}/infer"
    try:
        connection.request("GET", paths.READYZ)
        answer = connection.getresponse()
        if answer.read() and answer.status != http.client.OK:
            return f"status {answer.status} of {paths.READYZ}"
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"the gateway does not answer: {error}"
    finally:
        connection.close()
    if answer.status != http.client.OK:
        return f"status {answer.status}: {text.decode(errors='replace')[:500]}"
    return "" if _values(text) == [number + 1] else f"a wrong answer to {number:g}: {text[:500]!r}"


def _values(text: bytes) -> Any:
    try:
        return json.loads(text)["outputs"][0]["data"]
    except (ValueError, LookupError, TypeError):
        return None


def read_key(folder: Path) -> str:
    """Return the canary's key, or an empty text if the mesh has no keys."""
    file = folder / pod_paths.CANARY_VARIABLE
    return file.read_text().strip() if file.exists() else ""


def main() -> None:
    """Ask once. Ends the process with 0, or with 1 and the reason on standard error."""
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else pod_paths.KEYS_DIR)  # noqa: PLR2004 - arguments
    # FP32 holds whole numbers up to 2^24 exactly.
    number = float(time.monotonic_ns() % QUESTIONS)
    sys.exit(ask(int(sys.argv[1]), read_key(folder), number) or 0)


if __name__ == "__main__":
    main()
