"""A model whose library would leave no room for models is refused before the import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshserve import errors
from meshserve.core.interfaces import model_runtime
from meshserve.core.memory import copies
from meshserve.core.values import model
from meshserve.runtimes import python, runtime_lookup
from meshserve.worker.models import library_room, loader, process_memory

MIB = 1 << 20
NEED = model.Footprint(10 * MIB)
LIBRARIES = [runtime for runtime in runtime_lookup.RUNTIMES if runtime.library_bytes]


def recipe(runtime: python.PythonRuntime) -> loader.LoadRecipe:
    spec = model.ModelSpec(model.ModelId("m"), "u")
    return loader.LoadRecipe("k", spec, model_runtime.Artifact(Path("m"), "d", 1), runtime, "cpu")


class BigRuntime(python.PythonRuntime):
    library = "a_library_that_is_not_imported"
    library_bytes = 300 * MIB


class ImportedRuntime(BigRuntime):
    library = "numpy"


def test_a_library_that_takes_the_whole_budget_is_refused_with_the_least_that_works() -> None:
    own_bytes = process_memory.private_bytes()
    with pytest.raises(errors.ModelTooBig, match="takes about 300 MiB") as refused:
        library_room.check(recipe(BigRuntime()), NEED, {}, own_bytes + 305 * MIB)
    assert f"at least {own_bytes / MIB + 311:.0f} MiB" in refused.value.message


@pytest.mark.parametrize("extra_bytes", [320 * MIB, 1 << 40])
def test_one_that_fits_is_not(extra_bytes: int) -> None:
    budget_bytes = process_memory.private_bytes() + extra_bytes
    library_room.check(recipe(BigRuntime()), NEED, {}, budget_bytes)


def test_one_that_is_there_already_costs_nothing_more() -> None:
    library_room.check(recipe(ImportedRuntime()), NEED, {}, 1)


def test_other_copies_give_way() -> None:
    idle = copies.Copy("other", model.Footprint(20 * MIB), booked=model.Footprint(20 * MIB))
    budget_bytes = process_memory.private_bytes() + 295 * MIB
    library_room.check(recipe(BigRuntime()), NEED, {"other": idle}, budget_bytes)


MEASURE = """
import sys
from meshserve.runtimes import runtime_lookup
from meshserve.worker.models import process_memory
runtime = runtime_lookup.by_name(sys.argv[1])
assert runtime.library not in sys.modules
before = process_memory.private_bytes()
runtime.prepare("cpu")
assert runtime.library in sys.modules
print(process_memory.private_bytes() - before)
"""


@pytest.mark.parametrize("runtime", LIBRARIES, ids=lambda runtime: runtime.name)
def test_a_runtime_tells_about_what_its_library_takes(runtime: python.PythonRuntime) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, runtime.name], capture_output=True, text=True, check=True
    )
    grown_bytes = int(done.stdout.splitlines()[-1])
    assert 0.5 * grown_bytes < runtime.library_bytes < 2 * grown_bytes
