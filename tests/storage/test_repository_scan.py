from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve import errors
from meshserve.core.interfaces import cluster_control
from meshserve.core.values import model
from meshserve.storage import repository_scan, triton_config

PATTERN = model.ModelSpec(
    model.ModelId(""), "", pool="small", trust=True, origin=model.Origin.parse("repository:/models")
)
NAMES = st.text(alphabet="ab1é ", min_size=1, max_size=3).filter(lambda name: name == name.strip())
TREES = st.dictionaries(
    NAMES, st.dictionaries(st.integers(0, 12).map(str), st.just(b"model"), max_size=3), max_size=4
)


class Tree:
    """A repository on disk, and a clock that has moved on since it was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, text: bytes | str = b"model") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def scan(self, later_s: float = 5.0) -> cluster_control.RepositoryScan:
        return repository_scan.scan(self.folder, PATTERN, time.time_ns() + int(later_s * 1e9))

    def ids(self) -> list[str]:
        return [str(spec.id) for spec in self.scan().specs]

    def problems(self) -> list[str]:
        return list(self.scan().problems)


def local(uri: str) -> str:
    return unquote(urlsplit(uri).path)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    (tmp_path / "models").mkdir()
    return Tree(tmp_path / "models")


def test_all_layouts_side_by_side(tree: Tree) -> None:
    tree.put("triton/config.pbtxt", "max_batch_size: 4")
    tree.put("triton/1/model.onnx")
    tree.put("triton/3/model.onnx")
    tree.put("serving/0000012/saved_model.pb")
    tree.put("plain/model.py")
    tree.put(
        "mlserver/model-settings.json",
        json.dumps({"name": "iris", "implementation": "mlserver_sklearn.SKLearnModel"}),
    )
    tree.put("single.onnx")
    tree.put("packed.tar.gz")
    tree.put("wine.txt", "tree\nversion=v4\n")
    assert tree.ids() == [
        "iris:1",
        "packed:1",
        "plain:1",
        "serving:12",
        "single:1",
        "triton:1",
        "triton:3",
        "wine:1",
    ]
    assert tree.problems() == []


def test_other_files_are_ignored(tree: Tree) -> None:
    for name in (
        "README.md",
        "notes.txt",
        "data.json",
        "heldout.npz",
        ".hidden.onnx",
        ".git/config",
        "__pycache__/a.pyc",
    ):
        tree.put(name, "words")
    assert (tree.ids(), tree.problems()) == ([], [])


def test_specs_have_the_fields_of_their_repository(tree: Tree) -> None:
    path = tree.put("a b/1/model.onnx")
    spec = tree.scan().specs[0]
    assert (spec.pool, spec.trust, str(spec.origin), spec.runtime) == (
        "small",
        True,
        "repository:/models",
        "",
    )
    assert local(spec.uri) == str(path.parent)


def test_a_configuration_is_honoured(tree: Tree) -> None:
    tree.put("x/1/digits.onnx")
    config = """
        name: "digits" backend: "onnxruntime" max_batch_size: 8
        default_model_filename: "digits.onnx" input { name: "x" data_type: TYPE_FP32 dims: 4 }
    """
    tree.put("x/config.pbtxt", config)
    spec = tree.scan().specs[0]
    assert (str(spec.id), spec.runtime, spec.max_batch_size, spec.batching) == (
        "digits:1",
        "onnx",
        8,
        False,
    )
    assert spec.inputs == (model.TensorSpec("x", "FP32", (-1, 4)),)
    assert spec.options == {"file": "digits.onnx"}


@pytest.mark.parametrize(
    ("policy", "ids"),
    [("latest { num_versions: 2 }", ["a:2", "a:10"]), ("specific { versions: 1 }", ["a:1"])],
)
def test_a_version_policy_is_honoured(tree: Tree, policy: str, ids: list[str]) -> None:
    for version in ("1", "2", "10"):
        tree.put(f"a/{version}/model.onnx")
    tree.put("a/config.pbtxt", f"version_policy {{ {policy} }}")
    assert tree.ids() == ids


def test_mlserver_settings_lead_to_their_files(tree: Tree) -> None:
    path = tree.put("a/files/model.joblib")
    tree.put(
        "a/model-settings.json",
        json.dumps({"parameters": {"uri": "./files/model.joblib", "version": "v2"}}),
    )
    tree.put("b/model-settings.json", json.dumps({"parameters": {"uri": "s3://bucket/b"}}))
    specs = {str(spec.id): spec.uri for spec in tree.scan().specs}
    assert Path(local(specs["a:v2"])) == path
    assert specs["b:1"] == "s3://bucket/b"


def test_mlserver_versions_in_folders(tree: Tree) -> None:
    for version in ("v1", "v2"):
        tree.put(
            f"sum/{version}/model-settings.json",
            json.dumps({"name": "sum", "parameters": {"version": version}}),
        )
    tree.put("sum/v3/model-settings.json", "{")
    assert tree.ids() == ["sum:v1", "sum:v2"]
    assert [problem[:7] for problem in tree.problems()] == ["sum/v3:"]


def test_mlserver_settings_are_found_at_any_depth_but_not_below_versions(tree: Tree) -> None:
    tree.put("team/group/iris/model-settings.json", "{}")
    tree.put("team/sum/model-settings.json", "{}")
    tree.put("m/1/assets/model-settings.json", "{}")
    tree.put("m/1/model.onnx")
    assert tree.ids() == ["m:1", "iris:1", "sum:1"]


def test_a_folder_with_settings_is_one_model(tree: Tree) -> None:
    tree.put("model-settings.json", '{"name": "iris"}')
    tree.put("model.joblib")
    assert tree.ids() == ["iris:1"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("b/config.pbtxt", "max_batch_size: {", "b: line 1"),
        ("b/model-settings.json", "[]", "b: expected an object"),
        ("b/model-settings.json", '{"name": "a/b"}', "b: 'a/b' can't be a model's name"),
        ("b/notes/readme.md", "", "b: there is neither"),
        (" b.onnx", "", "' b' can't be a model's name"),
        ("b/model-settings.json", " " * (2 << 20), "bigger than"),
        ("a/1/model.onnx", "", "model a:1 is declared by a already"),
    ],
)
def test_a_broken_entry_hides_no_other(tree: Tree, name: str, text: str, words: str) -> None:
    tree.put("a.onnx")
    tree.put("c/1/model.onnx")
    tree.put(name, text)
    assert tree.ids() == ["a:1", "c:1"]
    assert [words in problem for problem in tree.problems()] == [True]


def test_a_broken_version_hides_no_other(tree: Tree) -> None:
    tree.put("a/1/model.onnx")
    (tree.folder / "a" / "2").mkdir()
    assert tree.ids() == ["a:1"]
    assert "a/2: " in tree.problems()[0]


@pytest.mark.parametrize(
    ("name", "good", "broken"),
    [
        ("config.pbtxt", "max_batch_size: 4", "max_batch_size: {"),
        ("model-settings.json", '{"parameters": {"uri": "1"}}', '{"parameters": '),
        ("2/model-settings.json", '{"parameters": {"version": "2"}}', "[]"),
    ],
)
def test_a_typo_in_a_description_keeps_what_was(
    tree: Any, name: str, good: str, broken: str
) -> None:
    if name.startswith("2/"):
        tree.put("m/1/model-settings.json", '{"parameters": {"version": "1"}}')
    tree.put("m/1/model.onnx")
    tree.put(f"m/{name}", good)
    scanner = repository_scan.EntryScanner(tree.folder, PATTERN, time.time_ns() + int(5e9))
    before = scanner.scan("m", repository_scan.NOTHING)
    assert before.specs
    tree.put(f"m/{name}", broken)
    after = scanner.scan("m", before)
    assert sorted(after.specs, key=str) == sorted(before.specs, key=str)
    assert len(after.problems) == 1
    tree.put(f"m/{name}", good)
    mended = scanner.scan("m", after)
    assert {spec.id for spec in mended.specs} == {spec.id for spec in before.specs}
    assert not mended.problems


def test_folders_that_are_passed_over_are_told(tree: Any) -> None:
    for folder in ("1", "v2", "latest", "configs"):
        tree.put(f"m/{folder}/model.onnx")
    assert tree.ids() == ["m:1"]
    reason = "passed over, because it is no whole number"
    folders = [line.partition(f": {reason}")[0] for line in tree.problems()]
    assert sorted(folders) == ["m/latest", "m/v2"]


def test_folders_with_zeros_before_their_number_are_passed_over_as_triton_does(tree: Tree) -> None:
    for folder in ("0", "0011", "2"):
        tree.put(f"m/{folder}/model.onnx")
    assert tree.ids() == ["m:0", "m:2", "m:11"]
    tree.put("m/config.pbtxt", "max_batch_size: 4")
    assert tree.ids() == ["m:0", "m:2"]
    assert [line.partition(":")[0] for line in tree.problems()] == ["m/0011"]


def test_of_two_folders_of_one_number_the_one_without_zeros_is_served(tree: Tree) -> None:
    plain = tree.put("m/11/model.onnx")
    tree.put("m/0011/model.onnx", "other")
    (spec,) = tree.scan().specs
    assert (spec.id.version, local(spec.uri)) == ("11", str(plain.parent))
    assert [line.partition(":")[0] for line in tree.problems()] == ["m/0011"]


def test_a_folder_may_be_read_by_another_configuration(tree: Tree) -> None:
    tree.put("m/config.pbtxt", "max_batch_size: 4")
    tree.put("m/labels.txt", "ant")
    for version in ("1", "2", "3"):
        tree.put(f"m/{version}/model.onnx")
    (*_, spec) = tree.scan().specs
    declared = triton_config.read(
        "version_policy { specific { versions: 2 } } "
        'output { name: "y" data_type: TYPE_FP32 dims: 1 label_filename: "labels.txt" }'
    )
    (anew,) = repository_scan.scan_as_declared(tree.folder, spec, declared)
    assert (anew.id, anew.max_batch_size) == (model.ModelId("m", "2"), 256)
    assert json.loads(anew.description)["labels"] == {"y": ["ant"]}
    nothing = triton_config.read("version_policy { specific { versions: 9 } }")
    with pytest.raises(errors.LoadFailed, match="no version to serve"):
        repository_scan.scan_as_declared(tree.folder, spec, nothing)


@pytest.mark.parametrize("name", ["a.onnx", "b/model.bin"])
def test_only_folders_can_be_read_by_another_configuration(tree: Tree, name: str) -> None:
    tree.put("b/model-settings.json", '{"parameters": {"uri": "model.bin"}}')
    tree.put(name)
    for spec in tree.scan().specs:
        declared = triton_config.read("max_batch_size: 4")
        assert repository_scan.scan_as_declared(tree.folder, spec, declared) == ()


@pytest.mark.parametrize("name", ["a.onnx", "b/1/model.onnx", "c/model.py", "d/model.bin"])
def test_a_change_of_the_files_changes_the_spec(tree: Tree, name: str) -> None:
    tree.put("d/model-settings.json", '{"parameters": {"uri": "model.bin"}}')
    path = tree.put(name)
    before, again = tree.scan(), tree.scan()
    path.write_bytes(b"other")
    after = tree.scan()
    assert before == again
    changed = [
        one.id.name for one, other in zip(before.specs, after.specs, strict=True) if one != other
    ]
    assert changed == [name[0]]


def test_new_files_being_written_are_not_served_yet(tree: Tree) -> None:
    tree.put("a/1/model.onnx")
    assert [tree.scan(later_s).specs == () for later_s in (-5.0, 0.0, 0.5, 5.0)] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize("name", ["a/1/model.onnx", "a/config.pbtxt", "a/1/more.bin"])
def test_changed_files_being_written_stay_as_they_were(tree: Tree, name: str) -> None:
    tree.put("a/1/model.onnx")
    before = repository_scan.EntryScanner(tree.folder, PATTERN, time.time_ns() + 10**10).scan(
        "a", repository_scan.NOTHING
    )
    tree.put(name, "")
    now = repository_scan.EntryScanner(tree.folder, PATTERN, time.time_ns()).scan("a", before)
    assert (now.specs, now.is_settling) == (before.specs, True)


def test_a_version_that_is_being_written_does_not_push_out_the_latest(tree: Tree) -> None:
    path = tree.put("a/1/model.onnx")
    tree.put("a/config.pbtxt", "version_policy { latest { } }")
    settled_ns = path.stat().st_ctime_ns + 2 * 10**9
    before = repository_scan.EntryScanner(tree.folder, PATTERN, settled_ns).scan(
        "a", repository_scan.NOTHING
    )
    new = repository_scan.EntryScanner(tree.folder, PATTERN, settled_ns)
    os.utime(tree.put("a/2/model.onnx"), ns=(settled_ns, settled_ns))
    assert new.scan("a", before).specs == before.specs


def test_a_missing_folder_is_refused(tree: Tree) -> None:
    with pytest.raises(errors.LoadFailed, match="can't be read"):
        repository_scan.scan(tree.folder / "nothing", PATTERN, 0)


@given(TREES)
def test_any_tree_of_versions_is_read(versions_by_name: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp())
    tree = Tree(folder)
    expected = {
        (name, version) for name, versions in versions_by_name.items() for version in versions
    }
    for name, version in expected:
        tree.put(f"{name}/{version}/model.onnx")
    scan = tree.scan()
    shutil.rmtree(folder)
    assert {(spec.id.name, spec.id.version) for spec in scan.specs} == expected
    assert scan.problems == ()
    assert len({spec.uri for spec in scan.specs}) == len(expected)
