from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore import exceptions

from meshserve import errors
from meshserve.storage import model_uri, remote_objects

SOURCE = model_uri.parse("https://user:word@host/a?sig=secret")
OBJECTS = st.lists(
    st.builds(
        remote_objects.RemoteObject,
        key=st.text(),
        name=st.text(),
        size_bytes=st.integers(0),
        state=st.text(),
    ),
    min_size=1,
)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError("Object at location a not objects"), "there is nothing there"),
        (exceptions.PermissionDeniedError("no"), "access was denied"),
        (
            exceptions.GenericError(
                "HTTP: GET https://user:word@host/a?sig=secret - 403 Forbidden\n\nDebug"
            ),
            "access was denied",
        ),
        (
            exceptions.GenericError(
                "HTTP: https://host/a?sig=secret after 3 retries - HTTP error: error sending"
            ),
            "error sending",
        ),
        (
            exceptions.GenericError("Header: Content-Length Header missing from response"),
            "the server does not say how long the file is",
        ),
        (
            exceptions.GenericError("Generic S3 error: PUT http://169.254.169.254/latest"),
            "no credentials were found",
        ),
        (exceptions.GenericError("odd https://host/a?sig=secret thing"), "odd *** thing"),
        (ValueError(), "ValueError"),
    ],
)
def test_errors_become_one_sentence_without_credentials(error: Exception, words: str) -> None:
    message = remote_objects.failure(SOURCE, error).message
    assert message.startswith("https://***@host/a?*** can't be fetched: ")
    assert words in message
    assert not any(hidden in message for hidden in ("\n", "word@", "secret"))


def test_a_failure_that_is_understood_is_left_alone() -> None:
    error = errors.LoadFailed("too big")
    assert remote_objects.failure(SOURCE, error) is error


@given(OBJECTS)
def test_a_stamp_depends_on_every_state(objects: list[remote_objects.RemoteObject]) -> None:
    stamp = remote_objects.stamp(tuple(objects))
    changed = [
        remote_objects.RemoteObject(
            object_.key, object_.name, object_.size_bytes, object_.state + "x"
        )
        for object_ in objects
    ]
    assert (stamp == "") == any(not object_.state for object_ in objects)
    assert remote_objects.stamp(tuple(changed)) != stamp


@pytest.mark.parametrize(
    "uri",
    [
        "gs://bucket/a",
        "s3://bucket/a",
        "abfss://box@account.dfs.core.windows.net/a",
        "https://host/a",
    ],
)
def test_every_scheme_has_a_store(uri: str) -> None:
    assert remote_objects.RemoteObjects(model_uri.parse(uri))


def test_a_missing_account_is_named() -> None:
    with pytest.raises(errors.LoadFailed, match="az://box/a can't be fetched: no account"):
        remote_objects.RemoteObjects(model_uri.parse("az://box/a"))


@pytest.mark.edge
async def test_an_object_and_a_folder_are_listed(bucket: Callable[[str, bytes], None]) -> None:
    bucket("m/a", b"model")
    bucket("m/w/b", b"weights")
    one = await remote_objects.RemoteObjects(model_uri.parse("s3://models/m/a")).list()
    all_of_them = await remote_objects.RemoteObjects(model_uri.parse("s3://models/m")).list()
    assert [(object_.name, object_.size_bytes) for object_ in one] == [("", 5)]
    assert [(object_.name, object_.key) for object_ in all_of_them] == [
        ("a", "m/a"),
        ("w/b", "m/w/b"),
    ]
    with pytest.raises(FileNotFoundError):
        await remote_objects.RemoteObjects(model_uri.parse("s3://models/nothing")).list()
