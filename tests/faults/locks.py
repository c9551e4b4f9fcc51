"""What closing a database file does to SQLite's locks on it, and who opens it: `python -m faults.locks URL HOW`.

POSIX cancels all of a process's locks on a file when the process closes any descriptor of it. Then another process
takes itself for the last one, and removes the log that this one goes on writing to (howtocorrupt.html 2.2 of SQLite).
HOW is `stray` (somebody reads the files), `unguarded` (the same without our guard), `twice` (a second store on the same
file is closed) or `audit` (count who opens the files while the store is at work). Prints each acknowledged text.
`beside` and `lent` close a store while this process is amid a read of the same file, let another process write, and
print what the read sees: with another store, or with the one that is closed.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import holdfast
from faults import command, environment
from holdfast.backends.claims import Claim
from holdfast.backends.sqlite import SQLiteBackend
from holdfast.urls import parse_url

EVENTS = 50


def another_process(url: str) -> None:
    """A short command: open, append, close."""
    subprocess.run(command("locks", url, "other"), env=environment(), check=True, timeout=60)


def touch(path: str) -> None:
    """What a backup, a scanner or a curious library does."""
    for name in (path, path + "-shm"):
        with open(name, "rb") as file:
            file.read(16)


def main(arguments: list[str]) -> None:
    """The program."""
    url, how = arguments
    path = parse_url(url).path
    if how == "unguarded":
        Claim.guard = lambda self: None  # type: ignore[method-assign]  # to see that it is needed
    store = holdfast.open(url)
    session = store.session("s")
    if how in ("other", "much"):
        for number in range(1 if how == "other" else 300):
            session.append(holdfast.user(how if how == "other" else secrets.token_hex(4000 + number)))
        store.close()
        return
    if how == "audit":
        print(f"opened {audited(url, path)} times")
        store.close()
        return
    if how in ("beside", "lent"):
        amid_a_read(store, url, how)
        return
    acknowledged = 0
    if how == "twice":
        store.close()
        store = holdfast.open(url)
        session = store.session("s")
        assert list(session.events()) == []  # this one only reads
        with holdfast.open(url) as second:
            second.session("s").append(holdfast.user("0"))
    else:
        session.append(holdfast.user("0"))
        touch(path)
    for acknowledged in range(EVENTS):
        if acknowledged == 1:
            another_process(url)
        if acknowledged:
            session.append(holdfast.user(str(acknowledged)))
        print(acknowledged, flush=True)
    os._exit(0)  # without closing the store: the last one to close would put its log in order


def amid_a_read(store: holdfast.Store, url: str, how: str) -> None:
    """One read, before and after another process wrote so much that the log is put in order and begun anew."""
    for number in range(200):
        store.session("s").append(holdfast.user(f"{number} " * 1000))
    backend = store.backend
    assert isinstance(backend, SQLiteBackend)
    closed = holdfast.open(url) if how == "beside" else store
    assert closed.session("s").last == 200
    with backend._file.reader() as db:
        db.execute("BEGIN")
        db.execute("PRAGMA cache_size = 0")
        print(db.execute(ALL).fetchone())
        closed.close()
        subprocess.run(command("locks", url, "much"), env=environment(), check=True, timeout=60)
        print(db.execute(ALL).fetchone())
        db.execute("ROLLBACK")
    store.close()


ALL = "SELECT (SELECT last FROM head), count(*), max(seq), sum(crc), sum(length(body)) FROM entry"


def audited(url: str, path: str) -> int:
    """Use all of a store; how often anything but SQLite opened its files meanwhile."""
    opened: list[str] = []
    watched = {path, path + "-shm", path + "-wal"}

    def hook(event: str, what: tuple[object, ...]) -> None:
        if event == "open" and what[0] in watched:
            opened.append(str(what[0]))

    with holdfast.open(url) as store:
        store.session("s").append(holdfast.user("the guard is there from now on"))
        sys.addaudithook(hook)
        session = store.session("audited", name="first")
        session.append(holdfast.user("large " * 50_000), holdfast.note("small"))
        session.update(name="second", metadata={"n": 1})
        session.remove_last()
        assert [event.type for event in session.events(include_hidden=True)] == ["message", "note", "edit"]
        assert store.search("small").items
        assert store.sessions().items
        assert store.index() == 0
        assert store.check().ok
        assert store.backend.info()["engine"] == "sqlite"
        listener = store.backend.listen(lambda: None)
        listener()
        session.delete()
    return len(opened)


if __name__ == "__main__":
    main(sys.argv[1:])
