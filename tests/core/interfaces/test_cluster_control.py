from __future__ import annotations

import inspect

import pytest

from meshserve.core.interfaces import cluster_control
from meshserve.testing import fake_cluster, fake_store, manual_clock

PAIRS = [
    (cluster_control.WorkerControl, fake_cluster.FakeCluster),
    (cluster_control.GatewayControl, fake_cluster.FakeCluster),
    (cluster_control.RegistryStore, fake_store.FakeStore),
    (cluster_control.RepositoryWatch, fake_store.FakeWatch),
    (cluster_control.Clock, manual_clock.ManualClock),
]
METHODS = [
    (port, fake, name) for port, fake in PAIRS for name in vars(port) if not name.startswith("_")
]


@pytest.mark.parametrize(
    ("port", "fake", "name"), METHODS, ids=lambda part: getattr(part, "__name__", part)
)
def test_a_fake_takes_what_its_port_takes(port, fake, name):
    assert list(inspect.signature(getattr(fake, name)).parameters) == list(
        inspect.signature(getattr(port, name)).parameters
    )
