from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import llm_figures, llm_overhead, streaming
from tests.bench import test_llm_figures


def test_no_two_requests_of_a_load_are_the_same() -> None:
    asked = [json.loads(body) for body in llm_overhead.bodies(64, 8)]
    assert len({body["prompt"] for body in asked}) == 64
    assert {(body["stream"], body["temperature"]) for body in asked} == {(True, 0)}
    assert {body["max_tokens"] for body in asked} == set(range(4, 13))


def test_the_bare_server_has_the_mesh_s_arguments_and_surroundings(tmp_path: Path) -> None:
    words = llm_overhead.bare_words(Path("/m"), "127.0.0.1:1")
    assert words[:2] == ["serve", "/m"]
    assert {"--enforce-eager", "--max-model-len=512", "--port=1", "--served-model-name=tiny"} < set(
        words
    )
    assert f"--kv-cache-memory-bytes={llm_overhead.KV_BYTES}" in words
    assert llm_overhead.bare_environment(tmp_path, tmp_path)["HF_HUB_OFFLINE"] == "1"


def test_answers_that_differ_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        llm_overhead, "measure", lambda system, *_: (test_llm_figures.figures(1, 1.0), [system])
    )
    systems: dict[str, Any] = {name: name for name in llm_overhead.STARTS}
    with pytest.raises(streaming.LoadFailed, match="different answers"):
        llm_overhead.one_round(systems, (llm_figures.MESH, llm_figures.BARE), 1, 1)
