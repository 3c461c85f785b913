from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from meshserve.storage import content, model_uri, source_stamps

FAR = ("http://host/a.onnx", "s3://bucket/a", "relative", "/nowhere/a.onnx")


def stamped(path: Path) -> str:
    return model_uri.stamped(str(path), content.stamp(path).text)


def test_settled_files_are_stamped_and_no_others(make_file: Callable[..., Path]) -> None:
    path = make_file("a b.onnx", is_old=False)
    pair = (str(path), "")
    assert source_stamps.find_changed([pair], is_said_whole=False) == {}
    changed = source_stamps.find_changed([pair, *((uri, "") for uri in FAR)], is_said_whole=True)
    assert changed == {pair: stamped(path)}
    assert source_stamps.find_changed([(str(path), stamped(path))], is_said_whole=True) == {}
    # A URI with a stamp of its own is a repository's.
    assert source_stamps.find_changed([(stamped(path), "")], is_said_whole=True) == {}


def test_a_file_that_is_open_for_writing_stays_as_it_is_declared(
    make_file: Callable[..., Path],
) -> None:
    path = make_file("a.onnx")
    before = (f"file://{path}", stamped(path))
    with path.open("r+b") as writing:
        writing.write(b"ha")
        writing.flush()
        assert source_stamps.find_changed([before], is_said_whole=True) == {}
    assert source_stamps.find_changed([before], is_said_whole=True) == {before: stamped(path)}


def test_one_source_of_two_models_is_told_to_both(make_file: Callable[..., Path]) -> None:
    path = make_file("a.onnx")
    pairs = [(str(path), ""), (str(path), stamped(path))]
    assert source_stamps.find_changed(pairs, is_said_whole=True) == {pairs[0]: stamped(path)}
