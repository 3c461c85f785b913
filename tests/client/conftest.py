import pytest

from tests.client import server


@pytest.fixture
def inference():
    return server.Inference()


@pytest.fixture
def endpoint(inference):
    with server.serving(inference) as where:
        yield where
