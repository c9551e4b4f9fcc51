"""What is tried with large values wherever they are kept: a writer that is killed, object storage that is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

import holdfast
from holdfast import Store, Unavailable, user
from holdfast.backends import objects
from servers.s3 import ObjectStorage

BIG = os.urandom(100_000).hex()
"""A text that is kept beside the events."""

WRITER = """
import sys, holdfast
with holdfast.open(sys.argv[1]) as store:
    for number in range(1000):
        store.session("s").append(holdfast.user(str(number) * 300_000), key=str(number))
        print(number, flush=True)
"""


def killed_large_writer(url: str) -> None:
    """Append to the session `s` of a store until six events were acknowledged, and be killed amid the next."""
    with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            if int(line) == 5:
                writer.send_signal(signal.SIGKILL)
                break


def big_of(store: Store) -> str:
    """The only message of the session `s`."""
    [found] = store.session("s").messages()
    return str(found.text)


def retried_once_it_is_back(url: str, server: ObjectStorage, monkeypatch: pytest.MonkeyPatch, text: str = BIG) -> str:
    """Append while object storage is away, and again with the same key when it is back; what the first try said."""
    monkeypatch.setattr(objects, "RETRIES", 1)
    with holdfast.open(url) as store:
        session = store.session("s")
        server.kill()
        with pytest.raises(Unavailable) as told:
            session.append(user(text), key="k")
        assert list(session.events()) == []
        server.start()
        session.append(user(text), key="k")
        assert session.append(user(text), key="k").repeated
        assert big_of(store) == text
        return str(told.value)
