"""What an engine promises, seen from outside of the server around it.

The rules that need no process are in `meshserve/testing/engine_suite.py`. Subclass
`EngineContract` with a `served` fixture, and `FailureContract` with one that gives a fresh server
to each test.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from meshserve import errors
from tests import support
from tests.llm import program

SOON_S = 1.0
STALL_S = 6.0
ERROR_S = 2.0
LONG = 400
COMPLETION: dict[str, Any] = {
    "model": program.NAME,
    "prompt": "def wait(",
    "temperature": 0,
    "extra_body": {"ignore_eos": True},
}
CHAT: dict[str, Any] = {
    "model": program.NAME,
    "messages": [{"role": "user", "content": "hello there"}],
    "max_tokens": 12,
    "temperature": 0,
}


def complete(served: program.Served, **changes: Any) -> str:
    request = COMPLETION | {"max_tokens": 8} | changes
    text: str = served.openai.completions.create(**request).choices[0].text
    return text


def open_stream(served: program.Served, **changes: Any) -> tuple[Any, Iterator[str]]:
    """Open a long stream, and return it with its lines once it is in the engine."""
    fields = {key: value for key, value in COMPLETION.items() if key != "extra_body"}
    body = fields | {"max_tokens": LONG, "stream": True, "ignore_eos": True} | changes
    stream = served.client.stream("POST", "/v1/completions", json=body)
    lines = stream.__enter__().iter_lines()
    support.wait_until(
        lambda: served.report().running + served.report().waiting,
        timeout_s=20.0,
        what="it is in the engine",
    )
    return stream, lines


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


class EngineContract:
    choices = 1
    """How many answers at once keep it busy for longer than a client takes to leave."""

    def test_it_passes_the_conformance_suite(self, served: program.Served) -> None:
        served.call("check")

    def test_openais_client_gets_the_same_chat_streamed_and_whole(
        self, served: program.Served
    ) -> None:
        whole = served.openai.chat.completions.create(**CHAT)
        chunks = list(served.openai.chat.completions.create(**CHAT, stream=True))
        contents = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(contents) == whole.choices[0].message.content != ""
        assert whole.usage.completion_tokens == CHAT["max_tokens"]

    def test_an_adapter_answers_differently(self, served: program.Served) -> None:
        assert complete(served) != complete(served, model=program.ADAPTER)

    def test_an_alias_answers_alike_and_by_its_own_name(self, served: program.Served) -> None:
        headers = {"x-mesh-model": program.ALIAS, "x-mesh-is-alias": "yes"}
        request = COMPLETION | {"model": program.ALIAS, "max_tokens": 8}
        answer = served.openai.completions.create(**request, extra_headers=headers)
        assert (answer.model, answer.choices[0].text) == (program.ALIAS, complete(served))
        stream = served.openai.completions.create(**request, stream=True, extra_headers=headers)
        assert {chunk.model for chunk in stream} == {program.ALIAS}

    def test_it_listens_on_its_socket_too(self, served: program.Served) -> None:
        assert Path(served.socket_path).is_socket()

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [({"model": "other"}, openai.NotFoundError), ({"max_tokens": -1}, openai.BadRequestError)],
    )
    def test_openais_client_understands_its_errors(
        self, served: program.Served, changes: dict[str, Any], kind: type[openai.APIStatusError]
    ) -> None:
        with pytest.raises(kind) as caught:
            complete(served, **changes)
        body = caught.value.body
        assert isinstance(body, dict)
        assert {"message", "type", "param", "code"} <= body.keys()

    def test_its_report_counts_requests_tokens_and_times(self, served: program.Served) -> None:
        before = served.report()
        complete(served, max_tokens=20)
        support.wait_until(
            lambda: served.report().tokens == before.tokens + 20, timeout_s=20.0, what="tokens"
        )
        after = served.report()
        assert after.requests == before.requests + 1
        assert (after.running, after.waiting, after.stalled_s) == (0, 0, 0.0)
        assert after.tokens_per_s > 0
        assert 0 < after.ttft_p50_s <= after.ttft_p95_s

    def test_a_client_that_closes_its_connection_ends_its_request(
        self, served: program.Served
    ) -> None:
        stream, _ = open_stream(served, n=self.choices, temperature=1)
        tokens = served.report().tokens
        stream.__exit__(None, None, None)
        support.wait_until(lambda: served.report().running == 0, SOON_S, "aborted")
        assert served.report().tokens - tokens < self.choices * LONG / 2

    def test_its_metrics_are_those_of_vllm(self, served: program.Served) -> None:
        assert "vllm:num_requests_running" in served.client.get("/metrics").text
        assert served.client.get("/healthz").status_code == 200

    def test_without_a_gpu_it_refuses_to_sleep_and_serves_on(self, served: program.Served) -> None:
        with pytest.raises(errors.Unsupported, match="CPU"):
            served.call("sleep", 1)
        assert served.client.get("/healthz").status_code == 200
        assert complete(served)

    def test_draining_lets_requests_end(self, served: program.Served) -> None:
        _, lines = open_stream(served, max_tokens=100)
        served.ask("drain", 30)
        support.wait_until(
            lambda: served.client.get("/healthz").status_code == 503,
            timeout_s=20.0,
            what="draining",
        )
        assert list(lines)[-2:] == ["data: [DONE]", ""]
        assert served.answer() is None

    def test_a_stop_leaves_no_process_file_or_shared_memory(self, served: program.Served) -> None:
        served.call("stop")
        served.stdin.close()
        assert served.process.wait(30) == 0
        support.wait_until(
            lambda: not [pid for pid in served.family if is_alive(pid)],
            timeout_s=20.0,
            what="processes gone",
        )
        assert list(Path(served.run_dir).iterdir()) == []
        assert [segment for segment in served.segments if Path(segment).exists()] == []


class FailureContract:
    """`STRIKE` says what happens to the engine: `kill` ends its core, `stop` halts it."""

    STRIKE = "kill"
    WITHIN_S = SOON_S
    choices = 1
    """How many answers at once keep it busy until the strike."""

    def test_a_failed_engine_is_noticed_and_its_streams_end_with_an_error(
        self, served: program.Served
    ) -> None:
        _, lines = open_stream(served, n=self.choices, temperature=1)
        served.call("strike", self.STRIKE)
        began_s = time.monotonic()
        events = [line.removeprefix("data: ") for line in lines if line]
        assert time.monotonic() - began_s <= self.WITHIN_S + ERROR_S
        assert json.loads(events[-2])["error"]["message"]
        assert served.call("failed")
        assert time.monotonic() - began_s <= self.WITHIN_S + ERROR_S
        self.check_refusals(served)
        served.call("stop")
        living = [pid for pid in served.family[1:] if is_alive(pid)]
        assert living == [process.pid for process in served.descendants()]
        assert [segment for segment in served.segments if Path(segment).exists()] == []

    def check_refusals(self, served: program.Served) -> None:
        assert served.client.get("/healthz").status_code == 503
        answer = served.client.post("/v1/completions", json=dict(COMPLETION))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["error"]["code"]


class StallContract(FailureContract):
    STRIKE = "stop"
    WITHIN_S = STALL_S + 1
