from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def loaded(sample):
    """The module's sample model, loaded once."""
    loaded = sample.load()
    yield loaded
    loaded.close()
