from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshserve.core.values import model

amounts = st.integers(-(1 << 50), 1 << 50)
footprints = st.builds(model.Footprint, amounts, amounts)
sizes = st.builds(model.Footprint, st.integers(0, 1 << 50), st.integers(0, 1 << 50))


@given(footprints, footprints)
def test_minus_undoes_plus(one: model.Footprint, other: model.Footprint) -> None:
    assert one.minus(other).plus(other) == one
    assert one.plus(other).minus(one) == other


@given(footprints, footprints, footprints)
def test_the_order_of_sums_does_not_matter(
    one: model.Footprint, other: model.Footprint, third: model.Footprint
) -> None:
    assert one.plus(other) == other.plus(one)
    assert one.plus(other).plus(third) == one.plus(other.plus(third))
    assert one.plus(model.Footprint()) == one


@given(footprints, footprints)
def test_each_device_is_counted_apart(one: model.Footprint, other: model.Footprint) -> None:
    both = one.plus(other)
    assert (both.host_bytes, both.gpu_bytes) == (
        one.host_bytes + other.host_bytes,
        one.gpu_bytes + other.gpu_bytes,
    )


@given(footprints, footprints)
def test_a_need_that_fits_leaves_no_negative_bytes(
    need: model.Footprint, room: model.Footprint
) -> None:
    left = room.minus(need)
    assert need.fits_in(room) == (left.host_bytes >= 0 and left.gpu_bytes >= 0)


@given(sizes, sizes, sizes)
def test_needs_that_fit_together_fit_one_after_the_other(
    one: model.Footprint, other: model.Footprint, room: model.Footprint
) -> None:
    if one.plus(other).fits_in(room):
        assert one.fits_in(room)
        assert other.fits_in(room.minus(one))


@pytest.mark.parametrize(("need", "fits"), [((5, 5), True), ((6, 0), False), ((0, 6), False)])
def test_free_memory_of_one_device_is_no_use_on_another(need: tuple[int, int], fits: bool) -> None:
    assert model.Footprint(*need).fits_in(model.Footprint(5, 5)) is fits


def test_an_id_is_shown_as_users_write_it() -> None:
    assert str(model.ModelId("iris")) == "iris:1"
    assert f"{model.ModelId('iris', '7')}" == "iris:7"


@pytest.mark.parametrize("text", ["config", "api", "alias", "repository:s3://bucket/a:b"])
def test_an_origin_is_read_back_from_its_text(text: str) -> None:
    assert str(model.Origin.parse(text)) == text


def test_an_origin_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        model.Origin.parse("nowhere:a")


def test_a_spec_can_be_pickled() -> None:
    spec = model.ModelSpec(
        model.ModelId("iris"),
        "/m",
        inputs=(model.TensorSpec("x", "FP32", (-1, 4)),),
        options={"a": [1]},
    )
    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("digest", "host_bytes", "gpu_bytes", "is_known"),
    [
        ("a", 100, 0, True),
        ("a", 109, 0, True),
        ("a", 91, 0, True),
        ("a", 120, 0, False),
        ("a", 100, 1, False),
        ("b", 100, 0, False),
    ],
)
def test_a_measurement_is_known_if_the_same_bytes_took_about_as_much(
    digest: str, host_bytes: int, gpu_bytes: int, is_known: bool
) -> None:
    earlier = model.Measured("a", model.Footprint(100), 1.0)
    fresh = model.Measured(digest, model.Footprint(host_bytes, gpu_bytes), 5.0)
    assert fresh.is_known(earlier) is is_known
    assert not fresh.is_known(None)


def test_a_workers_socket_has_its_name() -> None:
    address = model.ServerAddress("pool-3", "/run/mesh")
    assert address.socket_path == "/run/mesh/pool-3.sock"


def test_a_replicas_socket_has_a_short_name_of_its_own() -> None:
    paths = {
        model.ServerAddress(f"{'company/a-long-name' * 10}/{index}", "/run/mesh").socket_path
        for index in range(2)
    }
    assert len(paths) == 2
    assert all(path.startswith("/run/mesh/llm-") and len(path) < 50 for path in paths)
