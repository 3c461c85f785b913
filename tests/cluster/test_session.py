from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest
import ray

from meshserve import errors
from meshserve.cluster import session
from tests import support

pytestmark = [pytest.mark.edge, pytest.mark.usefixtures("ray_session")]


def test_the_handler_of_sigterm_is_kept() -> None:
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_processes_of_a_cluster_do_not_look_into_the_current_folder() -> None:
    task: Any = ray.remote(lambda: sys.flags.safe_path)
    own_variables = task.options(runtime_env={"env_vars": {"NAME": "value"}})
    assert ray.get([task.remote(), own_variables.remote()]) == [True, True]


def test_ray_kills_nothing_when_another_program_takes_the_memory() -> None:
    assert session.SYSTEM_CONFIG["memory_monitor_refresh_ms"] == 0


def test_a_gcs_that_runs_is_not_lost() -> None:
    assert not session.has_lost_gcs()


def test_processes_of_a_cluster_send_no_telemetry() -> None:
    task: Any = ray.remote(lambda: os.environ.get("ORT_DISABLE_TELEMETRY"))
    own_variables = task.options(runtime_env={"env_vars": {"NAME": "value"}})
    assert ray.get([task.remote(), own_variables.remote()]) == ["1", "1"]


@pytest.mark.parametrize("address", ["nonsense", "ray://h:10001", ":6379", "h:port"])
def test_a_malformed_address_is_the_users_mistake(address: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match="expected auto or HOST:PORT"):
        session.join(address)


def test_joining_fails_at_once_where_no_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{support.free_port()}"
    with pytest.raises(errors.Unavailable, match=f"no Ray cluster answers at {address}"):
        session.join(address)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(errors.Unavailable, match=f"no Ray cluster answers at {address}"):
        session.join("auto")


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("auto", False),
        ("192.0.2.1:1", False),
        ("head:1", False),
    ],
)
def test_only_loopback_addresses_get_this_machines_token(address: str, is_loopback: bool) -> None:
    assert session._is_loopback(address) is is_loopback
