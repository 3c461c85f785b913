from __future__ import annotations

import asyncio
import threading
from types import ModuleType

import pytest

from meshserve.logs import run_context

LABELS = run_context.RunLabels("iris", "3", "abc")


def test_nothing_runs_outside_of_a_run() -> None:
    assert run_context.find() == run_context.NO_RUN


def test_a_coroutine_on_another_loop_belongs_to_the_run_that_began_it() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def find() -> run_context.RunLabels:
        return run_context.find()

    token = run_context.begin(LABELS)
    try:
        found_labels = asyncio.run_coroutine_threadsafe(find(), loop).result()
    finally:
        run_context.end(token)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert found_labels == LABELS


@pytest.fixture
def user_module() -> ModuleType:
    """A module of a model whose function says what is known of its thread."""
    module = ModuleType("users_package.part")
    vars(module)["find"] = run_context.find
    exec("def look(out):\n    out.append(find())", vars(module))
    return module


def test_a_thread_of_a_model_is_known_by_its_code(user_module: ModuleType) -> None:
    token = run_context.begin(LABELS)
    run_context.claim("users_package")
    run_context.end(token)
    seen: list[run_context.RunLabels] = []
    for _ in range(2):
        thread = threading.Thread(target=user_module.look, args=(seen,))
        thread.start()
        thread.join()
        run_context.disown("users_package")
    assert seen == [run_context.RunLabels("iris", "3"), run_context.NO_RUN]
