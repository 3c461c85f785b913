import pytest

from meshserve.cli import down


class FakeApp:
    """Remembers what was ended."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.ended = []

    def running(self, _state_dir):
        return self.endpoint

    def down(self, state_dir, endpoint):
        self.ended.append((state_dir, endpoint))


@pytest.fixture
def app_at(monkeypatch, tmp_path):
    monkeypatch.setenv("MESHSERVE_HOME", str(tmp_path))
    monkeypatch.delenv("MESHSERVE_ENDPOINT", raising=False)

    def put(endpoint):
        fake = FakeApp(endpoint)
        monkeypatch.setattr(down, "app", fake)
        return fake

    return put


def test_the_mesh_that_was_started_here(app_at, run, tmp_path):
    app = app_at("http://h:1")
    assert run("down").stdout == "http://h:1 has ended\n"
    assert app.ended == [(tmp_path, None)]


def test_the_mesh_that_is_named(app_at, run, tmp_path):
    app = app_at(None)
    assert run("down", "--endpoint", "http://h:2").stdout == "http://h:2 has ended\n"
    assert app.ended == [(tmp_path, "http://h:2")]


def test_none_is_running(app_at, run):
    app = app_at(None)
    done = run("down")
    assert (done.exit_code, done.stdout, app.ended) == (0, "no mesh is running\n", [])
