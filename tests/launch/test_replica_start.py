"""What an engine gets, from the cache or from where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshserve import errors
from meshserve.core.values import llm_spec, model
from meshserve.launch import replica_start
from meshserve.logs import log_files
from meshserve.storage import artifact_store, llm_weights

NO_CACHE = replica_start.CacheLimits("/none", 1, 1)


def no_store() -> artifact_store.ArtifactStore:
    raise AssertionError("these weights need no cache")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("/models/tiny", "/models/tiny"),
        ("hf://org/tiny", "org/tiny"),
        ("HF://org/tiny", "org/tiny"),
    ],
)
async def test_local_and_hugging_face_weights_are_left_to_the_engine(uri: str, path: str) -> None:
    assert await replica_start._weights_path(no_store, uri, None) == path


async def test_other_weights_are_fetched_into_the_cache(tmp_path: Path) -> None:
    (tmp_path / "tiny.bin").write_text("weights")
    cache = artifact_store.ArtifactStore(str(tmp_path / "cache"), 1 << 20, 1 << 20)
    path = await replica_start._weights_path(lambda: cache, f"file://{tmp_path}/tiny.bin", None)
    assert Path(path).is_relative_to(tmp_path / "cache")
    await cache.close()


async def test_an_llm_server_has_its_engine_and_adapters(tmp_path: Path) -> None:
    adapter = llm_spec.Adapter("sql", "hf://org/sql")
    spec = llm_spec.LlmSpec("tiny", "/models/tiny", adapters=(adapter,))
    address = model.ServerAddress("tiny/0", str(tmp_path))
    server = await replica_start.build_llm_server(
        log_files.LogPlan(str(tmp_path)), NO_CACHE, address, spec, "mp"
    )
    assert server.engine.__class__.__name__ == "VllmEngine"
    assert server._order.spec == spec
    assert server._order.model_path == "/models/tiny"
    assert server._order.adapter_paths == {"sql": "org/sql"}
    assert (tmp_path / "tiny-0.log").exists()


async def test_an_unknown_engine_fails_before_anything_is_fetched(tmp_path: Path) -> None:
    spec = llm_spec.LlmSpec("tiny", "s3://bucket/tiny", runtime="vlm")
    address = model.ServerAddress("tiny/0", str(tmp_path))
    with pytest.raises(errors.LoadFailed, match="engine 'vlm' does not exist; there are: vllm"):
        await replica_start.build_llm_server(
            log_files.LogPlan(str(tmp_path)), NO_CACHE, address, spec, "mp"
        )


async def test_a_server_starts_with_the_weights_of_its_spec_alone(tmp_path: Path) -> None:
    folder, logs = tmp_path / "model", log_files.LogPlan(str(tmp_path / "logs"))
    folder.mkdir()
    (folder / "model.bin").write_text("weights")
    spec = llm_spec.LlmSpec("a", str(folder), weights=await llm_weights.identify(str(folder)))
    address = model.ServerAddress("a/0", str(tmp_path))
    server = await replica_start.build_llm_server(logs, NO_CACHE, address, spec, "mp")
    (folder / "model.bin").write_text("others!")
    with pytest.raises(errors.Unloadable, match="have changed"):
        await server._weights.check(spec)
    with pytest.raises(errors.Unloadable, match="have changed"):
        await replica_start.build_llm_server(logs, NO_CACHE, address, spec, "mp")


async def test_the_commit_at_hugging_face_is_ordered(tmp_path: Path) -> None:
    spec = llm_spec.LlmSpec("tiny", "hf://org/tiny", weights=llm_spec.Weights("commit c0ffee"))
    address = model.ServerAddress("tiny/0", str(tmp_path))
    server = await replica_start.build_llm_server(
        log_files.LogPlan(str(tmp_path)), NO_CACHE, address, spec, "mp"
    )
    assert server._order.commit == "c0ffee"


async def test_an_adapter_is_a_copy_that_does_not_change(tmp_path: Path) -> None:
    folder = tmp_path / "sql"
    folder.mkdir()
    (folder / "adapter.bin").write_text("weights")
    weights = await llm_weights.identify(str(folder))
    cache = artifact_store.ArtifactStore(str(tmp_path / "cache"), 1 << 20, 1 << 20)
    adapter = llm_spec.Adapter("sql", str(folder), weights)
    path = await replica_start._adapter_path(lambda: cache, adapter)
    (folder / "adapter.bin").write_text("others!")
    assert (Path(path) / "adapter.bin").read_text() == "weights"
    with pytest.raises(errors.Unloadable, match="have changed"):
        await replica_start._adapter_path(lambda: cache, adapter)
    await cache.close()
