"""The two forms of a log's lines: text for people, JSON for programs that collect logs."""

from __future__ import annotations

import json
import logging
import time

from meshserve.logs import run_context

MESSAGE_CHARS_MAX = 16_384
"""Longer messages, tracebacks included, are cut in the middle: their ends say most."""

REQUEST_ID_CHARS_MAX = 256

LABELS = "labels"
"""The attribute of a record that has its labels, where the writing thread does not know them."""


def labels_of(record: logging.LogRecord) -> run_context.RunLabels:
    """Return the labels of a record; those of the running code if it has none itself."""
    labels = getattr(record, LABELS, None)
    return labels if isinstance(labels, run_context.RunLabels) else run_context.find()


class TextLines(logging.Formatter):
    """`TIME LEVEL LOGGER [MODEL VERSION REQUEST]: MESSAGE`, further lines of it indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line, or as several of which only the first is not indented."""
        shown = " ".join(_plain(part) for part in labels_of(record) if part)
        labels = f" [{shown}]" if shown else ""
        # Indented, so that no printed text can look like another line of the log.
        message = "\n    ".join(whole_message(record).splitlines())
        at = f"{self.formatTime(record)} {record.levelname}"
        return f"{at} {record.name}{labels}: {message}"


class JsonLines(logging.Formatter):
    """One JSON object a line; a key without a value is left out."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON; its time is UTC."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, object] = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": whole_message(record),
        }
        labels = labels_of(record)._asdict()
        return json.dumps(fields | {name: _plain(text) for name, text in labels.items() if text})


def whole_message(record: logging.LogRecord) -> str:
    """Return the message, with the traceback if the record has one."""
    try:
        text = record.getMessage()
    # A model may log what does not fit its own format.
    except (TypeError, ValueError, KeyError):
        text = f"{record.msg} {record.args}"
    if record.exc_info:
        text = f"{text}\n{logging.Formatter().formatException(record.exc_info)}"
    if len(text) > MESSAGE_CHARS_MAX:
        half = MESSAGE_CHARS_MAX // 2
        text = f"{text[:half]} … {text[-half:]}"
    return text


def _plain(text: str) -> str:
    """Return a label as it can stand in a line: clients choose what request ids are made of."""
    kept = "".join(char if char.isprintable() else "?" for char in text[:REQUEST_ID_CHARS_MAX])
    return kept.replace("]", ")")


FORMS = {"text": TextLines, "json": JsonLines}
