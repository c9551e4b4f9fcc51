"""Object storage for the tests: moto's server, which speaks S3 and keeps all in its memory."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import urllib.request
from functools import cache
from pathlib import Path
from urllib.error import URLError

from servers.processes import Process, folder, free_port

KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret-of-nobody", "AWS_REGION": "us-east-1"}
"""What the environment says to who talks to it."""


class ObjectStorage:
    """A private server with one bucket, `bucket`."""

    def __init__(self) -> None:
        self.port = free_port()
        self._log = folder("s3") / "log"
        self._process: Process | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, empty, on the same port."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = Process(command, self._log, as_us=True)
        self._process.wait_until(self.answers)
        self.make_bucket("bucket")

    def answers(self) -> bool:
        """Whether it takes requests."""
        with contextlib.suppress(URLError, ConnectionError):
            urllib.request.urlopen(self.endpoint).close()
            return True
        return False

    def make_bucket(self, name: str) -> None:
        """Make a bucket."""
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")).close()

    def kill(self) -> None:
        """`kill -9`."""
        assert self._process is not None
        self._process.kill()


@cache
def storage() -> ObjectStorage:
    """The server that the tests of this process share."""
    return ObjectStorage()


def bucket_of(place: Path) -> str:
    """A place in the bucket for what belongs to a folder."""
    return f"s3://bucket/{hashlib.sha256(str(place).encode()).hexdigest()}"
