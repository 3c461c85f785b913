from __future__ import annotations

import pytest

from meshserve.core.values import llm_spec
from tests.core import llm_world


def test_clients_may_call_an_llm_by_its_name_its_aliases_and_its_adapters():
    spec = llm_world.spec("a", aliases=("b", "c"), adapters=(llm_spec.Adapter("d", "/d"),))
    assert spec.names == ("a", "b", "c", "d")


@pytest.mark.parametrize(("device", "gpus"), [("cuda", 6), ("cpu", 0)])
def test_a_replica_takes_a_gpu_for_each_part_of_it(device, gpus):
    assert (
        llm_world.spec("a", tensor_parallel_size=2, pipeline_parallel_size=3, device=device).gpus
        == gpus
    )
