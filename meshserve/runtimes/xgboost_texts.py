"""The texts of XGBoost's categories, which its files keep in two forms, one of them cut.

Both forms are one run of UTF-8 bytes and offsets into it. For frames of Arrow and Polars the
offsets count bytes. For frames of pandas they count characters, and so does the length of the run:
for every character beyond ASCII some bytes are missing at its end. XGBoost does not see this, for
it treats the frames of training and prediction alike: `npstr_to_arrow_strarr` and its caller in
`xgboost/_data_utils.py` (3.1 to 3.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOST = "…"
"""Stands in errors for the end of a text that the file does not have."""


@dataclass(frozen=True, slots=True)
class CutText:
    """The first bytes of a category that has `length` characters."""

    start: bytes
    length: int
    code: int

    def fits(self, text: str) -> bool:
        """Return whether the category can be this text."""
        raw = text.encode(errors="surrogateescape")
        return len(text) == self.length and raw.startswith(self.start)

    def is_telling(self) -> bool:
        """Return whether enough is known: half of the characters, or what XGBoost compares.

        With less, a category would too easily be taken for another.
        """
        is_half = 2 * len(self.readable()) >= self.length
        return bool(self.start) and (is_half or len(self.start) >= self.length)

    def readable(self) -> str:
        """Return the characters that are whole."""
        return self.start.decode(errors="ignore")

    def example(self) -> str:
        """Return a text that fits."""
        # The last character may be cut; nearly all of UTF-8's go on with a byte like \xa0.
        fills = (self.start + b"\xa0" * count for count in range(4))
        text = next((fill for fill in fills if _is_text(fill)), b"").decode()
        return text.ljust(self.length, "_")


class KeptTexts:
    """The categories of one column that an XGBoost file keeps as texts.

    `names` are the categories in the order of their codes, as far as they are known.
    """

    __slots__ = ("_codes", "_cut", "names")

    def __init__(self, raw: bytes, offsets: Sequence[int]) -> None:
        texts = _slices_by_character(raw, offsets)
        whole = {text.readable(): text.code for text in texts if _is_whole(text)}
        self._cut = [text for text in texts if not _is_whole(text)]
        by_byte = {text: code for code, text in enumerate(_slices_by_byte(raw, offsets))}
        self._codes = _merge(whole, by_byte, self._cut)
        self.names = [text.readable() + ("" if _is_whole(text) else LOST) for text in texts]

    def find_code(self, value: object) -> int | None:
        """Return the code of a category, or None if the file does not have it for certain."""
        if not isinstance(value, str):
            return None
        if value in self._codes:
            return self._codes[value]
        fitting = [text for text in self._cut if text.fits(value)]
        is_certain = len(fitting) == 1 and fitting[0].is_telling()
        return fitting[0].code if is_certain else None

    def example(self) -> str | None:
        """Return a text that has a code, or None if no category is certain."""
        candidates = itertools.chain(self._codes, (text.example() for text in self._cut))
        return next((text for text in candidates if self.find_code(text) is not None), None)


def _is_whole(text: CutText) -> bool:
    return len(text.readable()) == text.length


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _slices_by_character(raw: bytes, offsets: Sequence[int]) -> list[CutText]:
    # What is not UTF-8 can only be the last character, where the run of bytes is cut.
    text = raw.decode(errors="ignore")
    starts = [len(text[:offset].encode()) for offset in offsets]
    starts = [
        len(raw) if offset > len(text) else start
        for offset, start in zip(offsets, starts, strict=True)
    ]
    return [
        CutText(raw[start:end], offsets[code + 1] - offsets[code], code)
        for code, (start, end) in enumerate(itertools.pairwise(starts))
    ]


def _slices_by_byte(raw: bytes, offsets: Sequence[int]) -> list[str]:
    """Return the texts if the offsets can count bytes, else none."""
    slices = [raw[start:end] for start, end in itertools.pairwise(offsets)]
    texts = [item.decode() for item in slices if _is_text(item)]
    if len(texts) < len(slices):
        return []
    return texts if len({*texts}) == len(texts) else []


def _merge(
    whole: Mapping[str, int], by_byte: Mapping[str, int], cut: Sequence[CutText]
) -> dict[str, int | None]:
    """Return the texts of both readings; those on whose codes they differ have None."""
    candidates = [*whole.items(), *by_byte.items()]
    codes: dict[str, set[int]] = {}
    for text, code in candidates:
        codes.setdefault(text, set()).add(code)
    for text in by_byte:
        codes[text].update(lost.code for lost in cut if lost.fits(text))
    return {text: code if len(codes[text]) == 1 else None for text, code in candidates}
