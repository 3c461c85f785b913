"""Which model the body of a request asks for, as the script in a real Envoy finds it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway import conftest, engines

pytestmark = [pytest.mark.edge, pytest.mark.asyncio(loop_scope="module")]

PATH = "/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conftest.Mesh]:
    async with engines.running_llms(str(tmp_path_factory.mktemp("gw"))) as started:
        yield started


async def found(mesh: conftest.Mesh, body: Any, kind: str = "application/json") -> Any:
    """The name that was found, or the message of why not."""
    answer = await mesh.http.post(PATH, content=body, headers={"content-type": kind})
    if answer.status_code == 200:
        return answer.json()["headers"]["x-mesh-model"].encode("latin-1").decode()
    message = engines.fault(answer)[2]["message"]
    return message.removeprefix("The model `").removesuffix("` does not exist.")


GOOD = [
    '{"model":"tiny"}',
    ' \t\r\n{ "model" \n:\t"tiny" \r} \n',
    '\ufeff{"model":"tiny"}',
    '{"messages":[{"model":"x"}],"model":"tiny"}',
    '{"model":"tiny","messages":[{"model":"x"}],"tool":{"model":{"model":"y"}}}',
    '{"model":"x","model":"tiny"}',
    '{"model":null,"model":"tiny"}',
    '{"a":"\\"model\\":\\"x\\"","model":"tiny"}',
    '{"a":"\\\\","model":"tiny"}',
    '{"a":"\\\\\\"","model":"tiny","b":"\\\\"}',
    '{"a":"]}","b":["}",{"c":"]"}],"model":"tiny"}',
    '{"\\u006dod\\u0065l":"tiny"}',
    '{"model":"t\\u0069ny"}',
    '{"n":-1.5e+10,"t":true,"f":false,"z":null,"x":NaN,"y":-Infinity,"model":"tiny"}',
    '{"model":"tiny","model_":"x","mode":"x","Model":"x","":"x"}',
    '{"a":[],"b":{},"c":[[[]]],"d":[{}],"model":"tiny"}',
    '{"a":[1, 2,[3.5,-4e5],"]",6],"b":[[1],[2 ]],"c":[7\n,8],"model":"tiny"}',
    json.dumps({"text": "x" * 8_000_000, "model": "tiny"}),
    json.dumps({"model": "tiny", "text": 'say "hello"\n\\' * 300_000}),
]


@pytest.mark.parametrize("body", GOOD, ids=lambda body: body[:60])
async def test_the_name_is_found_at_any_place_of_the_message(
    mesh: conftest.Mesh, body: Any
) -> None:
    assert json.loads(body.encode())["model"] == "tiny"
    assert await found(mesh, body.encode()) == "tiny"


@pytest.mark.parametrize("name", ["org/tiny 1", "modèle-日本"])
async def test_names_may_be_escaped_or_not(mesh: conftest.Mesh, name: str) -> None:
    for is_ascii in (True, False):
        assert await found(mesh, json.dumps({"model": name}, ensure_ascii=is_ascii)) == name


@pytest.mark.parametrize(
    "name", ['a"b', "a\\b", "a/b", "😀", "\ud800x", "\b\f\n\r\t\x00\x7f", "é" * 900, "model"]
)
async def test_an_unknown_name_is_read_like_any_other(mesh: conftest.Mesh, name: str) -> None:
    expected = name.replace("\ud800", "\ufffd")
    assert await found(mesh, json.dumps({"model": name})) == expected


BROKEN = [
    "nonsense",
    '{"model":"tiny"',
    '{"model":"tiny"}}',
    '{"model":"tiny"} x',
    '{"model":"tiny",}',
    '{,"model":"tiny"}',
    '{"model" "tiny"}',
    "{'model':'tiny'}",
    '{"a":,"model":"tiny"}',
    '{"a":[1,2,"model":"tiny"}',
    '{"a":"b,"model":"tiny"}',
    '{"model":"\\x"}',
    '{"model":"\\u12"}',
    '{"model":"tiny" "b":1}',
    '{"model":tiny:1}',
    "{",
    '{"',
    '{"model',
    '{"model":',
    '{"model":"tiny\\"}',
]


@pytest.mark.parametrize(
    "body", [*BROKEN, b'{"model":"\xff"}', b'{"model":"\xc3"}'], ids=lambda body: repr(body[:40])
)
async def test_broken_json_is_refused(mesh: conftest.Mesh, body: Any) -> None:
    assert await found(mesh, body) == "the body is not valid JSON"


@pytest.mark.parametrize("body", ["[]", ' "model"', "[" * 100_000, "-1", "null", " true "])
async def test_json_that_is_no_object_is_told_so(mesh: conftest.Mesh, body: str) -> None:
    assert await found(mesh, body) == "the body must be a JSON object"


@pytest.mark.parametrize("body", ["{}", " { } ", '{"messages":[{"model":"tiny"}]}', '{"model":""}'])
async def test_a_missing_name_is_refused(mesh: conftest.Mesh, body: Any) -> None:
    assert await found(mesh, body) == "you must provide a model parameter"


@pytest.mark.parametrize("value", ["null", "1", "true", "[]", '["tiny"]', '{"model":"tiny"}'])
async def test_a_name_is_a_string(mesh: conftest.Mesh, value: Any) -> None:
    assert await found(mesh, f'{{"model":{value}}}') == "model must be a string"
    assert await found(mesh, f'{{"model":"tiny","model":{value}}}') == "model must be a string"


async def test_a_hostile_body_is_not_read_to_its_end(mesh: conftest.Mesh) -> None:
    assert (
        await found(mesh, '{"a":[' + '"",' * 3_000_000 + '""],"model":"tiny"}')
        == "the body has more than 2000000 values"
    )
    assert (
        await found(mesh, '{"a":"' + '\\"' * 3_000_000 + '","model":"tiny"}')
        == "the body has more than 2000000 values"
    )
    assert (
        await found(mesh, json.dumps({"model": "x" * 20_000}))
        == "model is longer than any model's name"
    )


def form(*fields: Any, boundary: str = "xYz") -> bytes:
    return (
        b"".join(
            b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary.encode(), head, body) for head, body in fields
        )
        + f"--{boundary}--\r\n".encode()
    )


FILE = (
    b'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav',
    b'\r\n\r\nname="model"\x00' * 1000,
)
MODEL = b'Content-Disposition: form-data; name="model"'


@pytest.mark.parametrize(
    "fields",
    [(FILE, (MODEL, b"tiny")), ((MODEL, b"tiny"), FILE), ((MODEL, b"x"), (MODEL, b"tiny"))],
)
async def test_a_form_names_the_model_too(mesh: conftest.Mesh, fields: Any) -> None:
    assert await found(mesh, form(*fields), "multipart/form-data; boundary=xYz") == "tiny"
    assert (
        await found(mesh, form(*fields), 'Multipart/Form-Data; charset=x; BOUNDARY="xYz"') == "tiny"
    )


async def test_a_form_of_httpx_is_read(mesh: conftest.Mesh) -> None:
    answer = await mesh.http.post(
        "/v1/audio/transcriptions",
        data={"model": "tiny"},
        files={"file": ("a.wav", b"\x00" * 100_000)},
    )
    assert answer.json()["headers"]["x-mesh-model"] == "tiny"


@pytest.mark.parametrize(
    "body",
    [b"", b"--xYz", form(FILE), form((MODEL, b"")), form((MODEL, b"\xff")), b"--xYz\r\n" * 10_000],
)
async def test_a_form_without_a_model_is_refused(mesh: conftest.Mesh, body: Any) -> None:
    assert (await found(mesh, body, "multipart/form-data; boundary=xYz")).startswith(
        "you must provide a model parameter"
    )


values = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(['"', "\\", '\\"', "{", "]", "model"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "a", '"', "}"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=st.dictionaries(st.text(max_size=5), values, max_size=4),
    indent=st.sampled_from([None, 1]),
    is_ascii=st.booleans(),
)
async def test_the_name_is_the_one_that_pythons_json_finds(
    mesh: conftest.Mesh, before: dict[str, Any], indent: int | None, is_ascii: bool
) -> None:
    after = {**before, "model": "tiny"}
    text = json.dumps(after, indent=indent, ensure_ascii=is_ascii).encode(errors="replace")
    assert await found(mesh, text) == "tiny"
