"""This node by its Ray. `tests/cluster/test_nodes.py` shows it with a mesh, on three machines."""

from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.launch import own_node
from tests import support


def test_where_no_ray_runs_the_node_is_not_known() -> None:
    address = f"127.0.0.1:{support.free_port()}"
    with pytest.raises(errors.Unavailable, match="no Ray cluster answers"), own_node.found(address):
        pass
