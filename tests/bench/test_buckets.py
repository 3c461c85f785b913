from __future__ import annotations

from pathlib import Path

import pytest

from bench import buckets


@pytest.mark.edge
@pytest.mark.slow
def test_what_was_put_can_be_fetched(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    path.write_bytes(b"bytes")
    with buckets.serving(tmp_path) as bucket:
        assert bucket.put(path) == "s3://bench/file.onnx"
        assert (
            bucket._client().get_object(Bucket=buckets.BUCKET, Key="file.onnx")["Body"].read()
            == b"bytes"
        )
        assert bucket.variables["AWS_ENDPOINT_URL"] == bucket.endpoint
