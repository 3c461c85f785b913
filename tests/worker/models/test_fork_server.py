"""The fork server imports libraries once, and only those that can be imported."""

from __future__ import annotations

from pathlib import Path

from meshserve.runtimes import runtime_lookup
from meshserve.worker.models import fork_server, process_launcher
from tests.runtimes import contract
from tests.worker.models import samples, test_isolated_model


def test_a_library_is_imported_once_for_all_its_models(tmp_path: Path) -> None:
    launcher = process_launcher.ProcessLauncher(lambda _: None)
    sample = samples.pickled_estimator(tmp_path)
    spec = contract.spec(**sample.fields)
    footprints = []
    for _ in range(2):
        runtime = test_isolated_model.isolated(launcher, sample.runtime)
        loaded = runtime.load(contract.artifact(sample.path), spec, "cpu")
        assert runtime.process is not None
        footprints.append(runtime.process.measure_footprint())
        loaded.close()
    launcher.close()
    # The library itself takes about 100 MiB, which the first model has in its own process.
    first, second = footprints
    assert second < first / 2
    assert second < 40 << 20


def test_only_runtimes_that_exist_are_imported_ahead() -> None:
    assert runtime_lookup.BUILT_IN.keys() >= fork_server.PRELOADED
