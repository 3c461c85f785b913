from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore import exceptions

from meshserve import errors
from meshserve.storage import blobs, model_uri

SOURCE = model_uri.parse("https://user:word@host/a?sig=secret")
BLOBS = st.lists(
    st.builds(
        blobs.RemoteObject,
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
        (FileNotFoundError("Object at location a not found"), "there is nothing there"),
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
def test_errors_become_one_sentence_without_credentials(error, words):
    message = blobs.failure(SOURCE, error).message
    assert message.startswith("https://***@host/a?*** can't be fetched: ")
    assert words in message
    assert not any(hidden in message for hidden in ("\n", "word@", "secret"))


def test_a_failure_that_is_understood_is_left_alone():
    error = errors.LoadFailed("too big")
    assert blobs.failure(SOURCE, error) is error


@given(BLOBS)
def test_a_stamp_knows_every_state(found):
    stamp = blobs.stamp(tuple(found))
    changed = [
        blobs.RemoteObject(each.key, each.name, each.size_bytes, each.state + "x") for each in found
    ]
    assert (stamp == "") == any(not each.state for each in found)
    assert blobs.stamp(tuple(changed)) != stamp


@pytest.mark.parametrize(
    "uri",
    [
        "gs://bucket/a",
        "s3://bucket/a",
        "abfss://box@account.dfs.core.windows.net/a",
        "https://host/a",
    ],
)
def test_every_scheme_is_wired(uri):
    assert blobs.RemoteObjects(model_uri.parse(uri))


def test_a_missing_account_is_said():
    with pytest.raises(errors.LoadFailed, match="az://box/a can't be fetched: no account"):
        blobs.RemoteObjects(model_uri.parse("az://box/a"))


@pytest.mark.edge
async def test_a_look_tells_an_object_from_a_folder(bucket):
    bucket("m/a", b"model")
    bucket("m/w/b", b"weights")
    one = await blobs.RemoteObjects(model_uri.parse("s3://models/m/a")).look()
    all_of_them = await blobs.RemoteObjects(model_uri.parse("s3://models/m")).look()
    assert [(each.name, each.size_bytes) for each in one] == [("", 5)]
    assert [(each.name, each.key) for each in all_of_them] == [("a", "m/a"), ("w/b", "m/w/b")]
    with pytest.raises(FileNotFoundError):
        await blobs.RemoteObjects(model_uri.parse("s3://models/nothing")).look()
