from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import config, errors
from meshserve.config import fields


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("4GiB", 4 << 30),
        ("512MiB", 512 << 20),
        ("1.5GB", 1_500_000_000),
        ("1 kb", 1000),
        ("2Ki", 2048),
        ("3T", 3 * 10**12),
        ("7", 7),
        ("8B", 8),
        (9, 9),
    ],
)
def test_sizes(text: int | str, size_bytes: int) -> None:
    assert fields.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", -1, "1.5.2GB", "4XB", "1e3", True, None, 1.5, [4], "4GiBB"]
)
def test_other_texts_are_no_size(text: Any) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        fields.parse_size(text)


@given(st.integers(0, 1 << 20), st.sampled_from(sorted(fields.UNITS)))
def test_every_unit_is_a_factor(number: Any, unit: Any) -> None:
    assert fields.parse_size(f"{number}{unit.lower()}") == number * fields.UNITS[unit]


def uri_of(source: Any) -> Any:
    return config.parse_model({"name": "a", "uri": source}).uri


@pytest.mark.parametrize(
    ("source", "uri"),
    [
        ("/a/b.onnx", "/a/b.onnx"),
        ("file:///a/b%20c", "/a/b c"),
        ("file://localhost/a", "/a"),
        ("s3://bucket/key", "s3://bucket/key"),
        ("HTTPS://h/x", "HTTPS://h/x"),
    ],
)
def test_sources(source: str, uri: str) -> None:
    assert uri_of(source) == uri


def test_a_source_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert uri_of("~/m.onnx") == "/home/someone/m.onnx"


@pytest.mark.parametrize(
    ("given_url", "url"),
    [
        ("sqlite:////v/r.db", "sqlite:////v/r.db"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
    ],
)
def test_databases(given_url: str, url: str) -> None:
    assert config.parse({"registry": {"url": given_url}}).registry_url == url


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:1", "0.0.0.0:65535", "[::1]:8080", "host.example:80"]
)
def test_addresses(listen: str) -> None:
    assert config.parse({"gateway": {"listen": listen}}).gateway.listen == listen


@pytest.mark.parametrize(
    "listen", ["", ":80", "host:", "host:0", "host:65536", "host:http", "8080"]
)
def test_other_texts_are_no_address(listen: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match="expected HOST:PORT"):
        config.parse({"gateway": {"listen": listen}})


@pytest.mark.parametrize("name", ["", " a", "a\n", "a/b", "a\x00b", "x" * 256, "stats", ".."])
def test_other_texts_are_no_name(name: Any) -> None:
    with pytest.raises(errors.ConfigInvalid, match=r"^name: "):
        config.parse_model({"name": name, "uri": "/a"})


@given(st.from_regex(r"[\w.:@ -]{1,40}", fullmatch=True))
def test_a_name_is_kept_unchanged(name: Any) -> None:
    name = f"m{name}m"
    assert config.parse_model({"name": name, "uri": "/a"}).name == name


def test_a_section_refuses_unknown_keys() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        fields.Section.model_validate({"key": 1})


@pytest.mark.parametrize("uri", ["~no-such-user/m.onnx", "file://~no-such-user/m.onnx"])
def test_the_home_of_nobody_is_no_path(uri: str) -> None:
    with pytest.raises(errors.ConfigInvalid, match="there is no such user"):
        config.parse_model({"name": "m", "uri": uri})


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("place", ["models", "llms"])
def test_options_are_finite(number: float, place: str) -> None:
    key = "options" if place == "models" else "engine"
    entry = {"name": "m", "uri": "hf://a/b" if place == "llms" else "s3://b/m"}
    document = {place: [{**entry, key: {"a": {"b": [1, number]}}}]}
    with pytest.raises(errors.ConfigInvalid, match=f"{key}.*finite numbers"):
        config.parse(document)


@pytest.mark.parametrize(
    ("address", "is_loopback"),
    [
        ("127.0.0.1:80", True),
        ("127.8.0.1:80", True),
        ("[::1]:80", True),
        ("localhost:80", True),
        ("0.0.0.0:80", False),
        ("[::]:80", False),
        ("10.0.0.1:80", False),
        ("gateway.example:80", False),
    ],
)
def test_an_address_of_this_machine_alone(address: str, is_loopback: bool) -> None:
    assert fields.is_loopback(address) is is_loopback


def test_a_pool_has_no_more_workers_than_a_ring_has_room_for() -> None:
    workers: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(fields.Workers)
    assert workers.validate_python(16_383) == 16_383
    with pytest.raises(pydantic.ValidationError, match="16383 workers at most, got 16384"):
        workers.validate_python(16_384)
