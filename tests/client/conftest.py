from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client import server


@pytest.fixture
def inference() -> server.Inference:
    return server.Inference()


@pytest.fixture
def endpoint(inference: server.Inference) -> Iterator[str]:
    with server.serving(inference) as where:
        yield where
