"""An S3 bucket on this machine, served by moto."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from bench import free_ports, served

BUCKET = "bench"
START_S_MAX = 60


@dataclass(frozen=True)
class Bucket:
    """A bucket's address, and the variables that point an S3 client to it."""

    endpoint: str

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process that reads from the bucket."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def put(self, path: Path) -> str:
        """Upload the file and return its URI."""
        self._client().upload_file(str(path), BUCKET, path.name)
        return f"s3://{BUCKET}/{path.name}"

    def make(self) -> None:
        """Create the bucket."""
        self._client().create_bucket(Bucket=BUCKET)

    def _client(self) -> Any:
        keys = {
            "aws_access_key_id": "bench",
            "aws_secret_access_key": "bench",
            "region_name": "us-east-1",
        }
        return boto3.client("s3", endpoint_url=self.endpoint, **keys)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Bucket]:
    """Serve an empty bucket until the block ends."""
    port = free_ports.free_port()
    with served.serving(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        folder / "moto.log",
    ) as system:
        system.wait_until(lambda: _is_open(port), START_S_MAX)
        bucket = Bucket(f"http://127.0.0.1:{port}")
        bucket.make()
        yield bucket


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
