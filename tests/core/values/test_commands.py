from __future__ import annotations

from typing import get_args

import pytest

from meshserve.core.values import commands


@pytest.mark.parametrize("kind", get_args(commands.WorkerCommand), ids=lambda kind: kind.__name__)
def test_a_worker_command_names_its_worker(kind):
    assert "worker_id" in kind.__slots__


@pytest.mark.parametrize("kind", get_args(commands.GatewayCommand), ids=lambda kind: kind.__name__)
def test_a_gateway_command_names_its_node(kind):
    assert "node" in kind.__slots__
