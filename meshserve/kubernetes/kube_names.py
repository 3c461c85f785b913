"""Kubernetes' rules for names, labels and quantities.

Source: k8s.io/apimachinery, pkg/util/validation/validation.go.
"""

from __future__ import annotations

import math
import re

LABEL_BYTES_MAX = 63
MIB = 1 << 20

DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN = re.compile(rf"{DNS_1123.pattern}(\.{DNS_1123.pattern})*")
NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


def is_dns_1035(name: str) -> bool:
    """Return whether `name` is a DNS label that begins with a letter, as names of Services are."""
    return len(name) <= LABEL_BYTES_MAX and DNS_1035.fullmatch(name) is not None


def is_dns_1123(name: str) -> bool:
    """Return whether `name` is a DNS label."""
    return len(name) <= LABEL_BYTES_MAX and DNS_1123.fullmatch(name) is not None


def is_subdomain(name: str) -> bool:
    """Return whether `name` is a DNS name, as the names of Secrets and most objects are."""
    return len(name) <= 253 and SUBDOMAIN.fullmatch(name) is not None  # noqa: PLR2004 - DNS' own


def is_label_key(key: str) -> bool:
    """Return whether `key` may be a label's key: a name, with a DNS prefix or without."""
    prefix, slash, name = key.rpartition("/")
    is_name = len(name) <= LABEL_BYTES_MAX and NAME_PART.fullmatch(name) is not None
    return is_name and (not slash or is_subdomain(prefix))


def is_label_value(value: str) -> bool:
    """Return whether `value` may be a label's value, which may be empty."""
    fits = len(value) <= LABEL_BYTES_MAX
    return fits and (not value or NAME_PART.fullmatch(value) is not None)


def as_dns_part(name: str) -> str:
    """Return a name of a pool or an LLM in DNS' alphabet, such as `qwen-qwen3` of `Qwen/Qwen3`.

    Different names may become equal.
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def quantity(size_bytes: int) -> str:
    """Return a size as Kubernetes writes it, rounded up to whole MiB."""
    return f"{math.ceil(size_bytes / MIB)}Mi"
