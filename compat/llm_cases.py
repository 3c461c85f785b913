"""Clients of large language models: openai, anthropic, and the generate extension.

The engine has no model: it answers with words by a rule, so what is tried is the way there and
back. vLLM itself is asked by `tests/e2e/test_llm_vllm.py`.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai

from compat import cases, mesh, words_engine, world

OPENAI, ANTHROPIC, OIP = "OpenAI", "Anthropic", "Open Inference Protocol"
MESSAGES = [{"role": "user", "content": "Say hello."}]
TOKENS = 8
WORDS = " ".join(words_engine.ANSWER)


def _openai(asked: world.World) -> Any:
    return openai.OpenAI(
        base_url=f"http://{asked.endpoint}/v1", api_key="none", max_retries=0, timeout=60
    )


def _chat(client: Any, **more: Any) -> Any:
    given = {"model": mesh.LLM, "messages": MESSAGES, "max_tokens": TOKENS, **more}
    return client.chat.completions.create(**given)


@cases.case(OPENAI, "chat", "openai-python: chat.completions.create")
def chats(asked: world.World) -> None:
    """A chat is answered whole, and streamed alike."""
    with _openai(asked) as client:
        whole = _chat(client).choices[0].message.content
        chunks = list(_chat(client, stream=True))
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert whole == streamed
    assert len(whole.split()) == TOKENS


@cases.case(OPENAI, "chat", "openai-python: AsyncOpenAI")
def chats_at_once(asked: world.World) -> None:
    """Many at once, by the client for asyncio."""

    async def ask() -> list[Any]:
        url = f"http://{asked.endpoint}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(_chat(client) for _ in range(8)))

    answers = {answer.choices[0].message.content for answer in asyncio.run(ask())}
    assert len(answers) == 1


@cases.case(OPENAI, "completions", "openai-python: completions.create")
def completions(asked: world.World) -> None:
    """A text is completed."""
    with _openai(asked) as client:
        answer = client.completions.create(model=mesh.LLM, prompt="def", max_tokens=TOKENS)
    assert len(answer.choices[0].text.split()) == TOKENS
    assert answer.usage.completion_tokens == TOKENS


@cases.case(OPENAI, "embeddings", "openai-python: embeddings.create")
def embeddings(asked: world.World) -> None:
    """Vectors of several texts, in their order."""
    with _openai(asked) as client:
        answer = client.embeddings.create(
            model=mesh.LLM, input=["a", "bb"], encoding_format="float"
        )
    assert [entry.index for entry in answer.data] == [0, 1]
    assert [entry.embedding[1] for entry in answer.data] == [1.0, 2.0]


@cases.case(OPENAI, "models", "openai-python: models.list, models.retrieve")
def models(asked: world.World) -> None:
    """All names of an LLM are listed, and each of them answers."""
    with _openai(asked) as client:
        names = [entry.id for entry in client.models.list()]
        assert {mesh.LLM, mesh.LLM_ALIAS} <= set(names)
        for name in (mesh.LLM, mesh.LLM_ALIAS):
            assert client.models.retrieve(name).id == name
            assert _chat(client, model=name).choices[0].message.content


@cases.case(OPENAI, "errors", "openai-python: NotFoundError, BadRequestError")
def openai_errors(asked: world.World) -> None:
    """Errors are those of the client's classes, with a message."""
    with _openai(asked) as client:
        unknown = functools.partial(_chat, client, model="nobody")
        assert "nobody" in _raised(unknown, openai.NotFoundError)
        bad = functools.partial(_chat, client, max_tokens=-1)
        assert "max_tokens" in _raised(bad, openai.BadRequestError)
        path = functools.partial(client.post, "/nothing", cast_to=object, body={"model": mesh.LLM})
        assert _raised(path, openai.NotFoundError)


def _raised(call: Callable[[], object], kind: type[Exception]) -> str:
    """Return the message of the error that the call must raise."""
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def _anthropic(asked: world.World) -> Any:
    return anthropic.Anthropic(
        base_url=f"http://{asked.endpoint}", api_key="none", max_retries=0, timeout=60
    )


@cases.case(ANTHROPIC, "messages", "anthropic-sdk-python: messages.create")
def messages(asked: world.World) -> None:
    """A message is answered whole."""
    with _anthropic(asked) as client:
        answer = client.messages.create(model=mesh.LLM, max_tokens=TOKENS, messages=MESSAGES)
    assert answer.content[0].text == WORDS


@cases.case(ANTHROPIC, "messages", "anthropic-sdk-python: messages.stream")
def streamed_messages(asked: world.World) -> None:
    """A message is streamed in events."""
    with (
        _anthropic(asked) as client,
        client.messages.stream(model=mesh.LLM, max_tokens=TOKENS, messages=MESSAGES) as stream,
    ):
        texts: Iterator[str] = stream.text_stream
        assert "".join(texts) == WORDS


@cases.case(ANTHROPIC, "errors", "anthropic-sdk-python: NotFoundError")
def anthropic_errors(asked: world.World) -> None:
    """An unknown model is an error in Anthropic's form."""
    with _anthropic(asked) as client:
        unknown = functools.partial(
            client.messages.create, model="nobody", max_tokens=1, messages=MESSAGES
        )
        said = _raised(unknown, anthropic.NotFoundError)
    assert "not_found_error" in said, said


@cases.case(OIP, "generate", "generate_rest.yaml")
def generate(asked: world.World) -> None:
    """A text is generated whole."""
    body = {"text_input": "def", "parameters": {"max_tokens": TOKENS}}
    answer = asked.post(f"/v2/models/{mesh.LLM}/generate", body)
    assert answer["model_name"] == mesh.LLM
    assert len(answer["text_output"].split()) == TOKENS


@cases.case(OIP, "generate", "generate_rest.yaml: generate_stream")
def generate_stream(asked: world.World) -> None:
    """A text is generated in events."""
    body = {"text_input": "def", "parameters": {"max_tokens": TOKENS}}
    whole = asked.post(f"/v2/models/{mesh.LLM}/generate", body)["text_output"]
    answer = asked.rest.post(f"/v2/models/{mesh.LLM}/generate_stream", json=body)
    events = [line.partition("data:")[2] for line in answer.text.splitlines()]
    texts = [json.loads(event)["text_output"] for event in events if "text_output" in event]
    assert "".join(texts) == whole
