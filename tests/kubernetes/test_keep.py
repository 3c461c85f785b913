"""The head's script, as it is printed, with a `meshserve` that writes down its calls."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from tests.kubernetes import meshes

RECORDER = """#!/bin/sh
echo "$* $APPS_KEY" >> "$CALLS"
if [ -e "$FAILS" ]; then exit 1; fi
"""


class Head:
    """The script with its folders below a test's own, and a wait of no length."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config" / "config.yaml"
        self.key = folder / "keys" / "APPS_KEY"
        self.calls = folder / "calls"
        self.fails = folder / "fails"
        for path, text in [(self.config, "first"), (self.key, "one"), (self.calls, "")]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        program = folder / "bin" / "meshserve"
        program.parent.mkdir()
        program.write_text(RECORDER)
        program.chmod(0o755)
        (manifest,) = meshes.of_kind(meshes.build(meshes.PLAIN), "ConfigMap")
        script = manifest["data"]["keep.sh"].replace("/etc/meshserve", str(folder))
        (folder / "keep.sh").write_text(script.replace("sleep 5", "sleep 0.05"))
        environment = {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "CALLS": str(self.calls),
            "FAILS": str(self.fails),
        }
        self.process = subprocess.Popen(
            ["bash", folder / "keep.sh"], env=environment, start_new_session=True
        )

    def wait_for_calls(self, count: int) -> list[str]:
        end_s = time.monotonic() + support.WAIT_S
        while len(lines := self.calls.read_text().splitlines()) < count:
            assert time.monotonic() < end_s
            time.sleep(0.02)
        return lines


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    head = Head(tmp_path)
    yield head
    os.killpg(head.process.pid, signal.SIGKILL)
    head.process.wait()


def test_a_changed_key_and_a_changed_configuration_are_applied(head: Head) -> None:
    up = f"up {head.config} --address auto --detach"
    assert head.wait_for_calls(1) == [f"{up} one"]
    head.key.write_text("two")
    assert head.wait_for_calls(2)[1] == f"{up} two"
    head.config.write_text("second")
    assert len(head.wait_for_calls(3)) == 3


def test_what_failed_is_tried_again(head: Head) -> None:
    head.wait_for_calls(1)
    head.fails.touch()
    head.key.write_text("two")
    assert len(head.wait_for_calls(4)) >= 4
