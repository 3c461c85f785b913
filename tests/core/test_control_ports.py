from __future__ import annotations

import inspect

import pytest

from meshserve.core import control_ports
from meshserve.testing import fake_cluster, fake_store, manual_clock

PAIRS = [
    (control_ports.Workers, fake_cluster.FakeCluster),
    (control_ports.Gateways, fake_cluster.FakeCluster),
    (control_ports.Store, fake_store.FakeStore),
    (control_ports.Watch, fake_store.FakeWatch),
    (control_ports.Clock, manual_clock.ManualClock),
]
METHODS = [(port, fake, name) for port, fake in PAIRS for name in vars(port) if not name.startswith("_")]


@pytest.mark.parametrize(("port", "fake", "name"), METHODS, ids=lambda part: getattr(part, "__name__", part))
def test_a_fake_takes_what_its_port_takes(port, fake, name):
    assert list(inspect.signature(getattr(fake, name)).parameters) == list(inspect.signature(getattr(port, name)).parameters)
