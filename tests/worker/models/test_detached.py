from __future__ import annotations

from collections.abc import Sequence

from meshserve.core.interfaces import model_runtime
from meshserve.core.values import model
from meshserve.worker.models import detached, loader


class Loaded(model_runtime.LoadedModel):
    def __init__(self) -> None:
        self.is_closed = False

    def predict(
        self, inputs: model_runtime.Tensors, outputs: Sequence[str]
    ) -> model_runtime.Tensors:
        raise NotImplementedError

    def close(self) -> None:
        self.is_closed = True


def is_closed(copy: loader.LoadedCopy) -> bool:
    assert isinstance(copy.loaded, Loaded)
    return copy.loaded.is_closed


def made(
    private_bytes: int, mapped_bytes: int = 1000, *, can_detach: bool = True
) -> loader.LoadedCopy:
    footprint = model.Footprint(private_bytes + mapped_bytes)
    return loader.LoadedCopy(
        Loaded(),
        footprint,
        1.0,
        None,
        is_measured=True,
        mapped_bytes=mapped_bytes,
        can_detach=can_detach,
    )


def test_a_detached_copy_can_be_taken_once() -> None:
    kept, one = detached.DetachedModels(100), made(10)
    assert kept.keep("a", one) == []
    assert "a" in kept
    assert kept.size_bytes == 10
    assert kept.take("a") is one
    assert not is_closed(one)
    assert (kept.take("a"), kept.size_bytes) == (None, 0)


def test_the_oldest_detached_copies_make_room() -> None:
    kept, all_ = detached.DetachedModels(100), {key: made(40) for key in "abcd"}
    gone = [kept.keep(key, one) for key, one in all_.items()]
    assert gone == [[], [], ["a"], ["b"]]
    assert [key for key, one in all_.items() if is_closed(one)] == ["a", "b"]
    assert kept.size_bytes == 80


def test_only_small_detachable_copies_are_kept() -> None:
    kept = detached.DetachedModels(100)
    assert kept.can_keep(made(100))
    assert not kept.can_keep(made(101))
    assert not kept.can_keep(made(10, can_detach=False))


def test_dropped_copies_are_closed() -> None:
    kept, all_ = detached.DetachedModels(100), {key: made(10) for key in "abc"}
    for key, one in all_.items():
        kept.keep(key, one)
    kept.drop("b")
    kept.drop("nobody")
    assert kept.clear() == ["a", "c"]
    assert all(is_closed(one) for one in all_.values())
    assert kept.size_bytes == 0
