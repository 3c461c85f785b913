"""All sockets of one machine, as another user of it meets them without a key.

`python -m tests.cluster.doors ADDRESS` runs on the machine itself, as root, and writes JSON: who
owns each port, and what `tests.faults.stranger` met there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.faults import listening

LIMIT_S = 120.0
ANY = ("0.0.0.0", "::")


def main() -> None:
    address = sys.argv[1]
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    met = listening.find(pids)
    owners = {
        (address if port.host in ANY else port.host, port.number): port.owner
        for port in met.ports
        if port.kind.startswith("tcp")
    }
    targets = {"ports": sorted(owners), "paths": sorted(met.paths)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.stranger"],
        input=json.dumps(targets),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named = {f"{host}:{number}": owner for (host, number), owner in owners.items()}
    json.dump({"owners": named, **json.loads(done.stdout)}, sys.stdout)


if __name__ == "__main__":
    main()
