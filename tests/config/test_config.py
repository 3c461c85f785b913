"""Whole files: good ones, and every kind of bad one with what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from meshserve import config, errors
from meshserve.core.values import model

FILES = ("digits.onnx", "wine.txt")

BAD = {
    "unknown key": (
        (
            "models:\n  - {name: a, uri: digits.onnx}\n  - name: b\n    uri: digits.onnx\n"
            "    runtim: onnx\n"
        ),
        ["c.yaml:5: models[1].runtim: unknown key; did you mean 'runtime'?"],
    ),
    "unknown key at the top": (
        "modles: []\n",
        ["c.yaml:1: modles: unknown key; did you mean 'models'?"],
    ),
    "unknown key like nothing": (
        "registry: {zzz: 1}\n",
        ["c.yaml:1: registry.zzz: unknown key; there are: url"],
    ),
    "wrong type": (
        "pools:\n  default:\n    queue_max: many\n",
        ["c.yaml:3: pools.default.queue_max: expected a whole number, got 'many'"],
    ),
    "text for a flag": (
        "models: [{name: a, uri: digits.onnx, pinned: 'yes'}]\n",
        ["c.yaml:1: models[0].pinned: expected true or false, got 'yes'"],
    ),
    "a mapping for a list": (
        "models: {name: a}\n",
        ["c.yaml:1: models: expected a list, got a mapping"],
    ),
    "a list for a mapping": ("pools: [a]\n", ["c.yaml:1: pools: expected a mapping, got a list"]),
    "a number for a section": (
        "gateway: 8080\n",
        ["c.yaml:1: gateway: expected a mapping, got 8080"],
    ),
    "nothing for a section": (
        "models: []\ngateway:\n",
        ["c.yaml:2: gateway: expected a mapping, got nothing"],
    ),
    "missing key": (
        "models:\n  - name: a\n",
        ["c.yaml:2: models[0].uri: is needed, but not given"],
    ),
    "out of range": (
        "pools:\n  default: {workers: 0}\n",
        ["c.yaml:2: pools.default.workers: expected auto or a whole number of at least 1, got 0"],
    ),
    "no time at all": (
        "pools: {default: {load_timeout_s: 0}}\n",
        ["c.yaml:1: pools.default.load_timeout_s: expected more than 0, got 0"],
    ),
    "no size": (
        "cache: {size: 4 bananas}\n",
        [
            (
                "c.yaml:1: cache.size: expected a size such as 512MiB, 4GiB, 1.5GB or a "
                "number of bytes, got '4 bananas'"
            )
        ],
    ),
    "no memory": (
        "pools: {default: {memory: 0}}\n",
        ["c.yaml:1: pools.default.memory: must be more than 0"],
    ),
    "one of several": (
        "pools: {default: {eviction: fifo}}\n",
        ["c.yaml:1: pools.default.eviction: expected gdsf or lru, got 'fifo'"],
    ),
    "nearly one of several": (
        "pools: {default: {device: cude}}\n",
        ["c.yaml:1: pools.default.device: expected cpu or cuda, got 'cude'; did you mean 'cuda'?"],
    ),
    "a GPU without memory": (
        "pools: {gpu: {device: cuda}}\n",
        [
            (
                "c.yaml:1: pools.gpu: device: cuda needs gpu_memory, the bytes of GPU "
                "memory for each worker, for example gpu_memory: 8GiB"
            )
        ],
    ),
    "GPU memory without a GPU": (
        "pools: {gpu: {gpu_memory: 1GiB}}\n",
        ["c.yaml:1: pools.gpu: gpu_memory is only used with device: cuda"],
    ),
    "a pool's name": (
        "pools: {'my pool': {}}\n",
        [
            (
                "c.yaml:1: pools.my pool: expected a name of letters, digits, '.', '_' and "
                "'-', got 'my pool'"
            )
        ],
    ),
    "a number as a name": ("pools:\n  1: {}\n", ["c.yaml:2: pools[1]: expected text, got 1"]),
    "no such pool": (
        "pools: {small: {}}\nmodels:\n  - name: a\n    uri: digits.onnx\n    pool: smal\n",
        ["c.yaml:5: models[0].pool: there is no pool 'smal'; did you mean 'small'?"],
    ),
    "a repository's pool": (
        "repositories:\n  - {path: ., pool: zzz}\n",
        ["c.yaml:2: repositories[0].pool: there is no pool 'zzz'; there are: default"],
    ),
    "model declared twice": (
        "models:\n  - {name: a, uri: digits.onnx}\n  - {name: a, uri: wine.txt}\n",
        [
            (
                "c.yaml:3: models[1].name: model 'a' version '1' is declared twice; first "
                "as models[0].name on line 2"
            )
        ],
    ),
    "alias of two": (
        (
            "models:\n  - {name: a, uri: digits.onnx, aliases: [x]}\n"
            "  - {name: b, uri: wine.txt, aliases: [x]}\n"
        ),
        [
            (
                "c.yaml:3: models[1].aliases[0]: alias 'x' is given twice; first as "
                "models[0].aliases[0] on line 2"
            )
        ],
    ),
    "alias that is a model": (
        "models:\n  - {name: a, uri: digits.onnx, aliases: [b]}\n  - {name: b, uri: wine.txt}\n",
        [
            (
                "c.yaml:2: models[0].aliases[0]: alias 'b' is the name of a model; first "
                "as models[1].name on line 3"
            )
        ],
    ),
    "pool given twice": (
        "pools:\n  small: {}\n  small: {workers: 2}\n",
        ["c.yaml:3: pools.small: given twice: first on line 2, again on line 3"],
    ),
    "missing file": (
        "models:\n  - {name: a, uri: digit.onnx}\n",
        [
            (
                "c.yaml:2: models[0].uri: no such file or folder: {folder}/digit.onnx; did "
                "you mean 'digits.onnx'?"
            )
        ],
    ),
    "missing folder": (
        "repositories: [{path: nowhere}]\n",
        ["c.yaml:1: repositories[0].path: no such file or folder: {folder}/nowhere"],
    ),
    "two places": (
        "repositories: [{path: ., uri: s3://b/m}]\n",
        ["c.yaml:1: repositories[0]: give path or uri, and not both"],
    ),
    "a repository in a bucket": (
        'repositories: [{uri: "s3://b/m"}]\n',
        [
            (
                "c.yaml:1: repositories[0]: s3://b/m can't be followed, only folders on this "
                "machine's disk: list the models that are elsewhere in `models`"
            )
        ],
    ),
    "a version as a fraction": (
        "models: [{name: a, uri: digits.onnx, version: 1.10}]\n",
        ["c.yaml:1: models[0].version: put it in quotes: a version is text, and 1.1 is a number"],
    ),
    "a slash in a name": (
        "models: [{name: a/b, uri: digits.onnx}]\n",
        [
            (
                "c.yaml:1: models[0].name: a name is printable text without '/' and "
                "without spaces at its ends, got 'a/b'"
            )
        ],
    ),
    "a checksum": (
        "models: [{name: a, uri: digits.onnx, checksum: 'sha256:1'}]\n",
        [
            (
                "c.yaml:1: models[0].checksum: expected sha256: and 64 hexadecimal digits "
                "in lower case, got 'sha256:1'"
            )
        ],
    ),
    "a date in options": (
        "models: [{name: a, uri: digits.onnx, options: {since: {day: 2026-01-01}}}]\n",
        [
            (
                "c.yaml:1: models[0].options.since: expected a JSON value (put a date in "
                "quotes), got datetime.date(2026, 1, 1)"
            )
        ],
    ),
    "no port": (
        "gateway: {listen: localhost}\n",
        ["c.yaml:1: gateway.listen: expected HOST:PORT such as 127.0.0.1:8080, got 'localhost'"],
    ),
    "two keys in one": (
        "gateway: {keys: [{client: a, key: k, key_env: K}]}\n",
        ["c.yaml:1: gateway.keys[0]: give key or key_env, not both"],
    ),
    "no key": (
        "gateway: {keys: [{client: a}]}\n",
        ["c.yaml:1: gateway.keys[0]: give key or key_env"],
    ),
    "no such variable": (
        "gateway:\n  keys:\n    - {client: a, key_env: NOT_SET_AT_ALL}\n",
        ["c.yaml:3: gateway.keys[0]: key_env: the environment variable NOT_SET_AT_ALL is not set"],
    ),
    "a foreign database": (
        "registry: {url: 'mysql://h/d'}\n",
        ["c.yaml:1: registry.url: expected sqlite:///FILE or postgresql://…, got 'mysql://h/d'"],
    ),
    "several at once, by line": (
        (
            "models:\n  - {name: a, uri: digits.onnx, pool: zzz}\n"
            "  - {nme: b, uri: wine.txt}\npols: {}\n"
        ),
        [
            "c.yaml:2: models[0].pool: there is no pool 'zzz'; there are: default",
            "c.yaml:3: models[1].name: is needed, but not given",
            "c.yaml:3: models[1].nme: unknown key; did you mean 'name'?",
            "c.yaml:4: pols: unknown key; did you mean 'pools'?",
        ],
    ),
    "no mapping": (
        "- a\n- b\n",
        ["c.yaml:1: expected a mapping of keys such as `models:`, got a list"],
    ),
    "empty": (
        "# nothing yet\n",
        ["c.yaml: the file is empty; a smallest one is `models: [{name: NAME, uri: FILE}]`"],
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).touch()
    return tmp_path


def load(text: Any) -> Any:
    Path("c.yaml").write_text(text)
    return config.load("c.yaml")


@pytest.mark.parametrize(("text", "messages"), BAD.values(), ids=BAD)
def test_a_bad_file_has_every_mistake_with_its_position(
    folder: Path, text: Any, messages: Any
) -> None:
    with pytest.raises(errors.ConfigInvalid) as caught:
        load(text)
    assert caught.value.message.splitlines() == [
        line.replace("{folder}", str(folder)) for line in messages
    ]


def test_a_missing_file() -> None:
    with pytest.raises(errors.ConfigInvalid, match=r"^/no/such\.yaml: no such file or directory$"):
        config.load("/no/such.yaml")


@pytest.mark.usefixtures("folder")
def test_a_file_that_is_not_text() -> None:
    Path("c.yaml").write_bytes(b"models: \xff\n")
    with pytest.raises(errors.ConfigInvalid, match=r"^c\.yaml: not UTF-8 text \(byte 8\)$"):
        config.load("c.yaml")


@pytest.mark.usefixtures("folder")
def test_an_empty_mapping_is_all_defaults() -> None:
    read = load("{}\n")
    assert read.gateway.listen == "127.0.0.1:8080"
    assert list(read.pools) == ["default"]
    assert read.model_specs() == ()


GOOD = """
gateway:
  listen: 0.0.0.0:80
  request_bytes_max: 1MiB
  keys: [{client: ops, key_env: OPS_KEY, admin: true}, {client: app, key: k2}]
pools: {small: {workers: 3, memory: 1.5GB, load_timeout_s: 7, idle_unload_s: 60.5}}
state_dir: state
models:
  - name: digits
    uri: ./digits.onnx
    version: 2
    pool: small
    aliases: [d]
    pinned: true
    options: {a: [1, null]}
  - name: far
    uri: "s3://bucket/far/"
    inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
    load_timeout_s: 9
repositories: [{path: ., watch: false}, {uri: "file:///usr", trust: true}]
"""


@pytest.fixture
def good(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("OPS_KEY", "k1")
    (folder / "c.yaml").write_text(GOOD)
    return config.load("c.yaml")


def test_models_become_the_cores_values(good: Any, folder: Path) -> None:
    first, second = good.model_specs()
    assert first == model.ModelSpec(
        id=model.ModelId("digits", "2"),
        uri=f"{folder}/digits.onnx",
        pool="small",
        pinned=True,
        load_timeout_s=7.0,
        options={"a": [1, None]},
        origin=model.FROM_CONFIG,
    )
    aliases = good.models[0].desired_aliases()
    assert [alias.alias for alias in aliases] == ["d"]
    assert (second.uri, second.load_timeout_s) == ("s3://bucket/far/", 9.0)
    assert second.inputs == (model.TensorSpec("x", "FP32", (-1, 4)),)


def test_keys_are_read_from_the_environment(good: Any) -> None:
    assert [(key.client, key.key, key.admin) for key in good.gateway.settings().keys] == [
        ("ops", "k1", True),
        ("app", "k2", False),
    ]
    assert "k1" not in repr(good)


def test_a_document_is_json_and_reads_back_equal(good: Any) -> None:
    assert config.parse(json.loads(json.dumps(config.document(good)))) == good


def test_a_document_of_defaults_keeps_its_state_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHSERVE_HOME", str(folder / "here"))
    written = config.document(load("{}\n"))
    monkeypatch.setenv("MESHSERVE_HOME", str(folder / "elsewhere"))
    assert config.parse(written).state_dir == folder / "here"


def test_paths_are_relative_to_the_file(
    good: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert config.load(folder / "c.yaml") == good


def test_paths_default_to_the_state_directory(good: Any, folder: Path) -> None:
    assert good.registry_url == f"sqlite:///{folder}/state/registry.db"
    assert good.cache_path == folder / "state" / "cache"


def test_a_document_may_name_files_of_another_machine() -> None:
    parsed = config.parse({"models": [{"name": "a", "uri": "/on/another/machine.onnx"}]})
    assert parsed.models[0].uri == "/on/another/machine.onnx"


def test_a_document_with_a_relative_path_is_refused() -> None:
    with pytest.raises(
        errors.ConfigInvalid,
        match=r"^models\[0\]\.uri: expected an absolute path or a URI, got 'a\.onnx'$",
    ):
        config.parse({"models": [{"name": "a", "uri": "a.onnx"}]})


def test_a_document_is_checked_across_its_entries() -> None:
    twice = [{"name": "a", "uri": "/a"}, {"name": "a", "uri": "/b"}]
    with pytest.raises(errors.ConfigInvalid, match=r"declared twice; first as models\[0\]\.name$"):
        config.parse({"models": twice})


def test_a_document_must_be_a_mapping() -> None:
    with pytest.raises(
        errors.ConfigInvalid, match=r"^the document: expected a mapping, got a list$"
    ):
        config.parse(cast("dict[str, Any]", []))
