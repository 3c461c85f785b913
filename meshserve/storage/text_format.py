"""Protobuf's text format, read without descriptors: as much as is needed for configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

DEPTH_MAX = 64
TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))
    |(?P<word>-?[A-Za-z_]\w*)
    |(?P<mark>[{}<>\[\]:,;./])""",
    re.VERBOSE,
)
ESCAPE = re.compile(
    rb"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL
)
LETTERS = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}
CLOSING = {"{": "}", "<": ">"}
OCTAL = re.compile(r"-?0[0-7]+")


class Word(str):
    """A bare word: an enum's value, `true`, `inf`."""

    __slots__ = ()


Value: TypeAlias = "str | int | float | Message"
Message: TypeAlias = "Mapping[str, list[Value]]"


class Token(NamedTuple):
    """A piece of the text. `kind` is a group of TOKEN, or `end`."""

    kind: str
    text: str
    line: int


def parse(text: str) -> Message:
    """Each field's values in their order, by name. Raises ValueError with the line where the text is wrong."""
    return Reader(text).message("end", 0)


def _tokens(text: str) -> Iterator[Token]:
    place, line = 0, 1
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise ValueError(f"line {line}: {text[place : place + 10]!r} is not understood")
        if match.lastgroup != "space":
            yield Token(match.lastgroup, match[0], line)
        line += match[0].count("\n")
        place = match.end()
    yield Token("end", "the end", line)


class Reader:
    """Takes tokens one after the other."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self._next = next(self._rest)

    def _take(self) -> Token:
        taken = self._next
        if taken.kind != "end":
            self._next = next(self._rest)
        return taken

    def _skip(self, *marks: str) -> bool:
        if self._next.kind == "mark" and self._next.text in marks:
            self._take()
            return True
        return False

    def message(self, closing: str, depth: int) -> Message:
        """All fields up to the closing mark."""
        if depth > DEPTH_MAX:
            raise ValueError(
                f"line {self._next.line}: more than {DEPTH_MAX} messages in each other"
            )
        fields: dict[str, list[Value]] = {}
        while not self._is_at(closing):
            fields.setdefault(self._name(), []).extend(self._values(depth))
            self._skip(",", ";")
        self._take()
        return fields

    def _is_at(self, closing: str) -> bool:
        return (
            self._next.kind == "end"
            if closing == "end"
            else self._next == Token("mark", closing, self._next.line)
        )

    def _name(self) -> str:
        name = self._take()
        if name == Token("mark", "[", name.line):
            return self._extension()
        if name.kind not in ("word", "number") or name.text.startswith("-"):
            raise ValueError(f"line {name.line}: expected a field's name, got {name.text}")
        return name.text

    def _extension(self) -> str:
        parts = []
        while not self._skip("]"):
            part = self._take()
            if part.kind not in ("word", "mark"):
                raise ValueError(f"line {part.line}: expected ], got {part.text}")
            parts.append(part.text)
        return f"[{''.join(parts)}]"

    def _values(self, depth: int) -> list[Value]:
        has_colon = self._skip(":")
        if not self._skip("["):
            return [self._value(depth, has_colon=has_colon)]
        values: list[Value] = []
        while not self._skip("]"):
            values.append(self._value(depth, has_colon=True))
            if not self._skip(",") and not self._is_at("]"):
                raise ValueError(f"line {self._next.line}: expected , or ], got {self._next.text}")
        return values

    def _value(self, depth: int, *, has_colon: bool) -> Value:
        token = self._take()
        if token.kind == "mark" and token.text in CLOSING:
            return self.message(CLOSING[token.text], depth + 1)
        if not has_colon:
            raise ValueError(f"line {token.line}: expected : or {{, got {token.text}")
        if token.kind == "text":
            return self._text(token)
        if token.kind == "number":
            return _number(token)
        if token.kind != "word":
            raise ValueError(f"line {token.line}: expected a value, got {token.text}")
        return Word(token.text)

    def _text(self, first: Token) -> str:
        """Texts that follow each other are one."""
        parts = [first.text]
        while self._next.kind == "text":
            parts.append(self._take().text)
        try:
            return b"".join(_unescaped(part[1:-1]) for part in parts).decode()
        except ValueError as error:
            raise ValueError(f"line {first.line}: {error}") from None


def _number(token: Token) -> int | float:
    text = "".join(token.text.split())
    if OCTAL.fullmatch(text):
        return int(text, 8)
    if "x" in text.lower() or text.lstrip("-").isdecimal():
        return int(text, 0)
    return float(text.rstrip("fF"))


def _unescaped(text: str) -> bytes:
    return ESCAPE.sub(_escape, text.encode("utf-8", "surrogateescape"))


def _escape(match: re.Match[bytes]) -> bytes:
    what = match[1]
    if what[:1] in (b"u", b"U") and len(what) > 1:
        return chr(int(what[1:], 16)).encode()
    if what[:1] == b"x" and len(what) > 1:
        return bytes([int(what[1:], 16)])
    if what.isdigit() and max(what) < ord("8"):
        return bytes([int(what, 8) & 0xFF])
    return LETTERS.get(what, what)
