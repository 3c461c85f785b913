from __future__ import annotations

import pytest

from meshserve import errors
from meshserve.control.api import http_messages

SCOPE = {
    "type": "http",
    "method": "PUT",
    "path": "/a b",
    "raw_path": b"/a%20b",
    "query_string": b"x=1&y=%C3%A4&z",
    "headers": [(b"a", b"b")],
}


def receiving(*messages):
    left = list(messages)

    async def receive():
        return left.pop(0)

    return receive


def request(body=b"", query=None):
    return http_messages.HttpRequest("GET", "/", query or {}, [], body)


async def test_a_request_is_read_whole():
    parts = [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd"},
    ]
    found = await http_messages.read(dict(SCOPE), receiving(*parts))
    assert found == http_messages.HttpRequest(
        "PUT", "/a%20b", {"x": "1", "y": "ä", "z": ""}, [(b"a", b"b")], b"abcd"
    )


async def test_a_client_that_goes_away_is_noticed():
    with pytest.raises(errors.Unavailable):
        await http_messages.read(dict(SCOPE), receiving({"type": "http.disconnect"}))


async def test_a_body_has_a_limit(monkeypatch):
    monkeypatch.setattr(http_messages, "BODY_BYTES_MAX", 3)
    with pytest.raises(errors.PayloadTooLarge):
        await http_messages.read(dict(SCOPE), receiving({"type": "http.request", "body": b"abcd"}))


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(errors.InvalidRequest):
        request(body).json()


def test_no_body_is_an_empty_object():
    assert request(b" \n").json() == {}


@pytest.mark.parametrize(("text", "limit"), [({}, http_messages.LIMIT), ({"limit": "5"}, 5)])
def test_a_limit_is_a_number(text, limit):
    assert request(query=text).limit() == limit


async def test_an_answer_says_how_long_it_is():
    sent = []

    async def send(message):
        sent.append(message)

    await http_messages.write(send, http_messages.json_answer({"a": 1}))
    assert (b"content-length", b"7") in sent[0]["headers"]
    assert sent[1]["body"] == b'{"a":1}'


def test_a_refusal_says_when_to_come_back():
    answer = http_messages.refusal(errors.Unavailable("later", retry_after_s=1.2))
    assert (answer.status, (b"retry-after", b"2") in answer.headers) == (503, True)
