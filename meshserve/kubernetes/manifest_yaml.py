"""Manifests as text that Kubernetes reads as it was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Writes no anchors, texts of several lines as they are, and quotes what looks like a number.

    Kubernetes reads YAML 1.2's numbers, such as 1e3, which are texts to PyYAML.
    """

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML calls it
        """Return whether a value that is used twice is written twice."""
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = None
    if "\n" in text:
        style = "|"
    elif text[:1] in "+-.~" or text[:1].isdecimal():
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(document: Any) -> str:
    """Return one document, its keys in their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def dump_all(documents: Iterable[Any]) -> str:
    """Return several documents, with a line `---` between them."""
    return "---\n".join(dump(document) for document in documents)
