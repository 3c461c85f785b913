"""Which files are written, and which are left alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from meshserve.core.values import snapshots
from meshserve.gateway.envoy import envoy_config, gateway_paths, xds_files
from tests.gateway.conftest import member

SNAPSHOT = snapshots.GatewaySnapshot(
    "127.0.0.1:1", "n1", {"default": (member("/run", "default-0"),)}
)


@pytest.fixture
def layout(tmp_path: Path) -> gateway_paths.GatewayPaths:
    paths = gateway_paths.GatewayPaths(str(tmp_path))
    paths.make_folders()
    return paths


def inodes(tmp_path: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in (tmp_path / "envoy").iterdir()}


def test_only_files_that_differ_are_replaced(
    tmp_path: Path, layout: gateway_paths.GatewayPaths
) -> None:
    folder = xds_files.ConfigFolder(layout)
    folder.write(envoy_config.files(SNAPSHOT, layout.run_dir))
    before = inodes(tmp_path)
    folder.write(
        envoy_config.files(
            snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {"default": ()}), layout.run_dir
        )
    )
    different = {name for name, inode in inodes(tmp_path).items() if inode != before[name]}
    assert different == {"eds-pool-default.json", "eds-busy-default.json"}


def test_files_that_hold_keys_are_for_their_owner_alone(
    tmp_path: Path, layout: gateway_paths.GatewayPaths
) -> None:
    xds_files.ConfigFolder(layout).write(envoy_config.files(SNAPSHOT, layout.run_dir))
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "envoy").iterdir()} == {0o600}


def test_members_files_of_removed_pools_are_pruned(
    tmp_path: Path, layout: gateway_paths.GatewayPaths
) -> None:
    folder = xds_files.ConfigFolder(layout)
    folder.write(envoy_config.files(SNAPSHOT, layout.run_dir))
    folder.write(
        envoy_config.files(snapshots.GatewaySnapshot("127.0.0.1:1", "n1", {}), layout.run_dir)
    )
    folder.prune()
    assert set(inodes(tmp_path)) == {
        "eds-controller.json",
        "cds.json",
        "rds.json",
        "lds.json",
        "bootstrap.json",
    }


def test_versions_are_those_of_the_files(layout: gateway_paths.GatewayPaths) -> None:
    folder = xds_files.ConfigFolder(layout)
    folder.write(
        {
            "lds.json": '{"version_info": "7"}',
            "eds-pool-a%3Ab.json": '{"version_info": "8"}',
            "bootstrap.json": "{}",
        }
    )
    assert folder.versions() == {
        "listener_manager.lds.version_text": "7",
        "cluster.pool-a_b.version_text": "8",
    }


def test_the_files_of_an_earlier_gateway_are_known(layout: gateway_paths.GatewayPaths) -> None:
    files = envoy_config.files(SNAPSHOT, layout.run_dir)
    xds_files.ConfigFolder(layout).write(files)
    Path(layout.config(".lds.json")).write_text("half")
    folder = xds_files.ConfigFolder(layout)
    folder.read()
    assert folder.files == files


def test_a_removed_folder_leaves_nothing(
    tmp_path: Path, layout: gateway_paths.GatewayPaths
) -> None:
    folder = xds_files.ConfigFolder(layout)
    folder.write(envoy_config.files(SNAPSHOT, layout.run_dir))
    folder.remove()
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}
    assert folder.files == {}
