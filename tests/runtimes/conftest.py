from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtimes import contract


@pytest.fixture(scope="module")
def loaded(sample: contract.Sample) -> Iterator[Any]:
    """The module's sample model, loaded once."""
    loaded = sample.load()
    yield loaded
    loaded.close()
