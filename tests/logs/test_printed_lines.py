from __future__ import annotations

import threading

import pytest

from meshserve.logs import printed_lines, run_context

FIRST = run_context.RunLabels("first", "1", "a")
SECOND = run_context.RunLabels("second", "1", "b")

Line = tuple[str, str]


@pytest.fixture
def lines() -> list[Line]:
    return []


@pytest.fixture
def stream(lines: list[Line]) -> printed_lines.PrintedLines:
    return printed_lines.PrintedLines(
        "stdout", 1, lambda _, line, labels: lines.append((labels.model, line))
    )


def say(stream: printed_lines.PrintedLines, labels: run_context.RunLabels, text: str) -> None:
    token = run_context.begin(labels)
    stream.write(text)
    run_context.end(token)


def test_lines_are_written_when_they_end(
    stream: printed_lines.PrintedLines, lines: list[Line]
) -> None:
    say(stream, FIRST, "a")
    say(stream, FIRST, "b\nc\r10 %\r20 %\r\n\n  \n")
    assert lines == [("first", "ab"), ("first", "c"), ("first", "10 %"), ("first", "20 %")]


def test_a_line_without_an_end_belongs_to_its_run(
    stream: printed_lines.PrintedLines, lines: list[Line]
) -> None:
    say(stream, FIRST, "first's")
    say(stream, SECOND, "second's\n")
    assert lines == [("first", "first's"), ("second", "second's")]


def test_threads_do_not_mix_their_lines(
    stream: printed_lines.PrintedLines, lines: list[Line]
) -> None:
    say(stream, FIRST, "here ")
    thread = threading.Thread(target=say, args=(stream, SECOND, "elsewhere"))
    thread.start()
    thread.join()
    say(stream, FIRST, "too\n")
    stream.write_rests()
    assert lines == [("first", "here too"), ("second", "elsewhere")]


def test_a_flush_writes_what_has_begun(
    stream: printed_lines.PrintedLines, lines: list[Line]
) -> None:
    print("loading …", end="", flush=True, file=stream)
    print(" done", file=stream)
    assert [line for _, line in lines] == ["loading …", " done"]


def test_long_lines_are_cut(stream: printed_lines.PrintedLines, lines: list[Line]) -> None:
    stream.write("x" * 10_000)
    assert sum(len(line) for _, line in lines) == 10_000
    assert max(len(line) for _, line in lines) <= printed_lines.LINE_CHARS_MAX


def test_scripts_use_it_as_a_stream(stream: printed_lines.PrintedLines, lines: list[Line]) -> None:
    stream.reconfigure(encoding="utf-8", line_buffering=True)
    stream.buffer.write("ä\n".encode())
    stream.buffer.flush()
    stream.writelines(["b\n"])
    assert (stream.isatty(), stream.fileno(), stream.encoding) == (False, 1, "utf-8")
    assert stream.errors == "backslashreplace"
    assert stream.writable()
    assert stream.buffer.writable()
    assert stream.buffer.fileno() == 1
    assert [line for _, line in lines] == ["ä", "b"]
