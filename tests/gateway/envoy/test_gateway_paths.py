"""Paths below a run folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.gateway.envoy import gateway_paths


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_any_cluster_has_a_file_of_its_own_in_the_folder(cluster: str) -> None:
    name = gateway_paths.members_file(cluster)
    assert "/" not in name
    assert gateway_paths.cluster_of(name) == cluster


def test_a_folder_too_long_for_sockets_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long a name"):
        gateway_paths.GatewayPaths(str(tmp_path / ("x" * 100))).make_folders()
    assert list(tmp_path.iterdir()) == []


def test_everything_lies_below_the_folder(tmp_path: Path) -> None:
    layout = gateway_paths.GatewayPaths(str(tmp_path))
    layout.make_folders()
    assert {path.name for path in tmp_path.iterdir()} == {"envoy", "logs"}
    assert layout.config("lds.json") == f"{tmp_path}/envoy/lds.json"


def test_stale_sockets_are_removed(tmp_path: Path) -> None:
    layout = gateway_paths.GatewayPaths(str(tmp_path))
    for stale in (layout.admin_socket, layout.grpc_socket, layout.http_socket):
        (tmp_path / stale).touch()
    layout.remove_sockets()
    layout.remove_sockets()
    assert list(tmp_path.iterdir()) == []
