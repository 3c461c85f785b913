"""The fakes implement the Protocols. mypy, which reads this file, compares each method."""

from __future__ import annotations

from meshserve.control import control_plane
from meshserve.core.interfaces import cluster_control, registry_store
from meshserve.testing import fake_cluster, fake_store, manual_clock

CLUSTERS: tuple[type[cluster_control.Cluster], ...] = (fake_cluster.FakeCluster,)
STORES: tuple[type[registry_store.RegistryStore], ...] = (fake_store.FakeStore,)
WATCHES: tuple[type[cluster_control.RepositoryWatch], ...] = (fake_store.FakeWatch,)
CLOCKS: tuple[type[cluster_control.Clock], ...] = (
    control_plane.RealClock,
    manual_clock.ManualClock,
)


def test_a_fake_cluster_controls_workers_gateways_and_replicas() -> None:
    for fake in CLUSTERS:
        assert all(
            hasattr(fake, method)
            for protocol in cluster_control.Cluster.__mro__
            for method in vars(protocol)
            if not method.startswith("_")
        )
