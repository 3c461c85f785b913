"""A gateway's process, made by its own module."""

from __future__ import annotations

from pathlib import Path

from meshserve.launch import gateway_start
from meshserve.logs import log_files
from tests.launch import processes


def test_it_imports_no_more_than_a_gateway_needs() -> None:
    used = processes.imported_by(gateway_start.__name__)
    assert used == {"grpc", "httpx", "starlette"}


def test_nodes_that_share_a_folder_have_logs_of_their_own(tmp_path: Path) -> None:
    for secret, names in (("", ["gateway.log"]), ("s", ["gateway-n1.log", "gateway.log"])):
        gateway_start.build_gateway(log_files.LogPlan(str(tmp_path)), secret, str(tmp_path / "n1"))
        assert sorted(path.name for path in tmp_path.glob("*.log")) == names
