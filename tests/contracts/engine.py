"""What every `engine_ports.Engine` must keep to, seen through the server around it.

Subclass `EngineContract` with a `served` fixture, and `FailureContract` with one that gives a fresh server each time.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import openai
import pytest

from meshserve import errors
from tests import support
from tests.llm import program

SOON_S = 1.0
STALL_S = 6.0
ERROR_S = 2.0
LONG = 400
ASKED = {
    "model": program.NAME,
    "prompt": "def wait(",
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}
CHAT = {
    "model": program.NAME,
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 12,
    "temperature": 0,
}


def text(served, **changes):
    return served.openai.completions.create(**(ASKED | {"max_tokens": 8} | changes)).choices[0].text


def opened(served, **changes):
    """A long stream that the engine works on; an engine that has no core to itself may be late with its tokens."""
    body = {key: value for key, value in ASKED.items() if key != "extra_body"} | {
        "max_tokens": LONG,
        "stream": True,
        "ignore_eos": True,
    }
    stream = served.client.stream("POST", "/v1/completions", json=body | changes)
    lines = stream.__enter__().iter_lines()
    support.wait_until(
        lambda: served.report().running + served.report().waiting, what="it is in the engine"
    )
    return stream, lines


def is_alive(pid):
    return (
        Path(f"/proc/{pid}").exists()
        and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    )


class EngineContract:
    choices = 1
    """How many answers at once keep it busy for longer than a client takes to leave."""

    def test_it_serves_its_names_and_its_adapters(self, served):
        names = {program.NAME, program.ALIAS, program.ADAPTER}
        assert {each.id for each in served.openai.models.list()} == names
        assert len({text(served, model=name) for name in names}) == 2

    def test_the_same_question_has_the_same_answer_streamed_or_not(self, served):
        whole = served.openai.chat.completions.create(**CHAT)
        chunks = list(served.openai.chat.completions.create(**CHAT, stream=True))
        assert (
            "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
            == whole.choices[0].message.content
            != ""
        )
        assert whole.usage.completion_tokens == CHAT["max_tokens"]

    def test_it_listens_on_its_socket_too(self, served):
        assert Path(served.socket_path).is_socket()

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [({"model": "other"}, openai.NotFoundError), ({"max_tokens": -1}, openai.BadRequestError)],
    )
    def test_a_wrong_request_is_told_so_in_openai_s_shape(self, served, changes, kind):
        with pytest.raises(kind) as caught:
            text(served, **changes)
        assert {"message", "type", "param", "code"} <= set(caught.value.body)

    def test_what_is_not_json_is_a_bad_request(self, served):
        answer = served.client.post(
            "/v1/completions", content=b"{", headers={"content-type": "application/json"}
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]

    def test_its_report_counts_requests_tokens_and_times(self, served):
        before = served.report()
        text(served, max_tokens=20)
        support.wait_until(lambda: served.report().tokens == before.tokens + 20, what="tokens")
        after = served.report()
        assert after.requests == before.requests + 1
        assert (after.running, after.waiting, after.stalled_s) == (0, 0, 0.0)
        assert after.tokens_per_s > 0
        assert 0 < after.ttft_p50_s <= after.ttft_p95_s

    def test_a_client_that_leaves_ends_its_request(self, served):
        stream, _ = opened(served, n=self.choices, temperature=1)
        begun = served.report().tokens
        stream.__exit__(None, None, None)
        support.wait_until(lambda: served.report().running == 0, SOON_S, "aborted")
        assert served.report().tokens - begun < self.choices * LONG / 2

    def test_its_metrics_are_those_of_vllm(self, served):
        assert "vllm:num_requests_running" in served.client.get("/metrics").text
        assert served.client.get("/healthz").status_code == 200

    def test_without_a_gpu_it_does_not_sleep_and_serves_on(self, served):
        with pytest.raises(errors.Unsupported, match="CPU"):
            served.call("sleep", 1)
        assert served.client.get("/healthz").status_code == 200
        assert text(served)

    def test_draining_lets_what_runs_end(self, served):
        _, lines = opened(served, max_tokens=100)
        served.ask("drain", 30)
        support.wait_until(
            lambda: served.client.get("/healthz").status_code == 503, what="draining"
        )
        assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert served.answer() is None

    def test_once_stopped_nothing_is_left(self, served):
        served.call("stop")
        served.process.stdin.close()
        assert served.process.wait(30) == 0
        support.wait_until(
            lambda: not [pid for pid in served.family if is_alive(pid)], what="processes gone"
        )
        assert list(Path(served.run_dir).iterdir()) == []
        assert [segment for segment in served.segments if Path(segment).exists()] == []


class FailureContract:
    """`strike` says what happens to the engine: `kill` ends its core, `stop` halts it."""

    STRIKE = "kill"
    WITHIN_S = SOON_S
    choices = 1
    """How many answers at once keep it busy until it is struck."""

    def test_an_engine_that_fails_is_noticed_and_its_streams_end_with_an_error(self, served):
        _, lines = opened(served, n=self.choices, temperature=1)
        served.call("strike", self.STRIKE)
        began_s = time.monotonic()
        rest = [line.removeprefix("data: ") for line in lines if line]
        assert time.monotonic() - began_s <= self.WITHIN_S + ERROR_S
        assert json.loads(rest[-2])["error"]["message"]
        assert served.call("failed")
        assert time.monotonic() - began_s <= self.WITHIN_S + ERROR_S
        self.sends_away(served)
        served.call("stop")
        assert [pid for pid in served.family[1:] if is_alive(pid)] == [
            each.pid for each in served.descendants()
        ]
        assert [segment for segment in served.segments if Path(segment).exists()] == []

    def sends_away(self, served):
        assert served.client.get("/healthz").status_code == 503
        answer = served.client.post("/v1/completions", json=dict(ASKED))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"]


class StallContract(FailureContract):
    STRIKE = "stop"
    WITHIN_S = STALL_S + 1
