from __future__ import annotations

from meshserve_parrot import ParrotEngine

from meshserve.core.interfaces import llm_engine
from meshserve.core.values import llm_spec
from meshserve.testing import check_engine


def test_it_keeps_meshserves_contract_for_engines(tmp_path):
    spec = llm_spec.LlmSpec("polly", "/m", device="cpu")
    check_engine(ParrotEngine, llm_engine.EngineOrder(spec, "/m", run_dir=str(tmp_path)))
