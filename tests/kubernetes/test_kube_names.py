from __future__ import annotations

import pytest

from meshserve.kubernetes import kube_names


@pytest.mark.parametrize(
    ("name", "is_1035", "is_1123"),
    [
        ("mesh", True, True),
        ("a", True, True),
        ("a-1", True, True),
        ("1-a", False, True),
        ("a" * 63, True, True),
        ("a" * 64, False, False),
        ("a-", False, False),
        ("-a", False, False),
        ("A", False, False),
        ("a.b", False, False),
        ("a_b", False, False),
        ("", False, False),
        ("ä", False, False),
        ("a\n", False, False),
    ],
)
def test_dns_labels(name: str, is_1035: bool, is_1123: bool) -> None:
    assert kube_names.is_dns_1035(name) is is_1035
    assert kube_names.is_dns_1123(name) is is_1123


def test_subdomains() -> None:
    assert kube_names.is_subdomain("a.b-c.d")
    assert not kube_names.is_subdomain("a..b")
    assert not kube_names.is_subdomain("a." * 126 + "aa")


@pytest.mark.parametrize("key", ["a", "A.b_c-d", "example.com/a", "a" * 63])
def test_keys_of_labels(key: str) -> None:
    assert kube_names.is_label_key(key)


@pytest.mark.parametrize("key", ["", "/a", "a/", "a/b/c", "Example.com/a", "-a", "a" * 64, "ä"])
def test_what_is_no_key_of_a_label(key: str) -> None:
    assert not kube_names.is_label_key(key)


def test_values_of_labels() -> None:
    assert all(map(kube_names.is_label_value, ["", "a", "A.b_c-1", "a" * 63]))
    assert not any(map(kube_names.is_label_value, ["a b", "-a", "a.", "a" * 64, "a/b"]))


@pytest.mark.parametrize(
    ("name", "part"), [("Qwen/Qwen3", "qwen-qwen3"), ("a__b", "a-b"), ("ü", ""), ("-a-", "a")]
)
def test_a_name_becomes_part_of_a_dns_label(name: str, part: str) -> None:
    assert kube_names.as_dns_part(name) == part


def test_quantities_are_rounded_up() -> None:
    assert kube_names.quantity(1 << 30) == "1024Mi"
    assert kube_names.quantity((1 << 20) + 1) == "2Mi"
