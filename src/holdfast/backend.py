"""The seam: what an engine must do to keep a store, and how a URL finds one.

Few verbs over bytes. A backend that passes `holdfast.testing.contract` is a backend; nothing above this line knows
which one it is. What is built once above the seam (counters, idempotent retries, tails, search syntax, large values)
must not be built again below it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from holdfast.errors import Corrupt, Invalid, Unavailable
from holdfast.paths import as_path, as_text
from holdfast.plan import Commit, Entry, Head, Ref, Refused
from holdfast.shown import shown

if TYPE_CHECKING:
    from holdfast.search import Node

CHUNK = 1024 * 1024
"""Bytes of a blob at the most; a larger value is cut into several."""

BLOB_PATIENCE = 60
"""Seconds that a writer of blobs waits for who deletes some, and the other way round."""

TextOf = Callable[[bytes], str]
"""What search looks at in a body, normalised. A backend that keeps an index is given one when it is opened, and calls
it when it indexes, so that the words of an event cost nothing on the append path. It raises `Corrupt` for what can't be
read whole; `text` on the error is what can."""


def readable(text_of: TextOf, body: bytes) -> str | None:
    """The words of a body as far as they can be read; None if none can."""
    try:
        return text_of(body)
    except Corrupt as error:
        text = error.facts.get("text")
        return text if isinstance(text, str) else None


class Hit(NamedTuple):
    """An entry that a search found. A higher `score` is a better hit; scores compare within one search only."""

    ref: Ref
    entry: Entry
    score: float


class Heads(list[Head]):
    """Heads that were found, in order. `damaged` names those left out: they, or their places, can't be trusted."""

    def __init__(self, heads: Iterable[Head] = (), damaged: Sequence[Ref] = ()) -> None:
        super().__init__(heads)
        self.damaged = tuple(damaged)


class Problem(NamedTuple):
    """Something `verify` found wrong. `ref` and `seq` say where, as far as that can be told."""

    ref: Ref | None
    seq: int | None
    what: str


class Blobs(Protocol):
    """Bytes under their SHA-256 (lower-case hex), at most `CHUNK` each, stored once.

    Who puts bytes that a commit will refer to holds `shared` from before the put until after the commit, and who
    deletes holds `exclusive` while it looks for references; so no bytes go that somebody is about to refer to.
    """

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes, durably; a digest that is there already is left alone."""
        ...

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None. Raises `Corrupt` if they do not match their digest."""
        ...

    def delete(self, digest: str) -> bool:
        """Remove the bytes; False if they were not there."""
        ...

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """The digests that are there, in order, from the first above `after`."""
        ...

    def shared(self) -> AbstractContextManager[None]:
        """Keep deleters out, of all threads and processes; others may put meanwhile. It ends with the process.

        A thread that holds it must not ask for it again.

        Raises:
            Unavailable: somebody deleted all the time.
        """
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep everybody else who holds either out, and new ones waiting.

        Raises:
            Unavailable: somebody held it all the time.
        """
        ...


class Backend(Protocol):
    """One engine's store. All methods may be called from any thread at once."""

    blobs: Blobs

    def commit(self, batch: Sequence[Commit]) -> list[Head | Refused]:
        """Make commits in order, each on its own, as `plan` says; all are durable on return.

        A head that can't be trusted can only be deleted: `plan` is given what is left of it, with a `last` and a `rev`
        that nobody has been told.

        Raises:
            Corrupt: a head can't be trusted; nothing of the whole batch was stored.
            Unavailable: nothing of the whole batch was stored.
            Uncertain: it can't be told.
        """
        ...

    def get(self, refs: Sequence[Ref]) -> list[Head | None]:
        """The heads, tombstones included; None where there never was one.

        Raises:
            Corrupt: a head is there but can't be trusted.
        """
        ...

    def read(
        self,
        ref: Ref,
        *,
        after: int = 0,
        upto: int | None = None,
        ids: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        voided: bool = False,
    ) -> list[Entry]:
        """Entries with `after < seq <= upto`, in order of seq (or reversed), voided ones only when asked for.

        With `ids`, only those that carry one of them. An entry that can't be trusted comes with its `fault` said.
        One call sees one state: never half a commit.
        """
        ...

    def find(
        self,
        kind: str,
        tags: Mapping[str, str | None],
        *,
        after: tuple[int, str] | None = None,
        limit: int = 100,
        dead: bool = False,
        trashed: bool = False,
    ) -> Heads:
        """Living heads that carry all the tags (None: lack it), newest first: by `(at, id)` falling, below `after`.

        With `dead`, tombstones instead of living heads; they carry no tags. With `trashed`, those that were put away,
        which are not found otherwise, and must cost a list of the living nothing. A head that changes while pages are
        turned moves to the front, where the next page does not look.
        One that can't be trusted is left out, so that it hides no other, and named in `damaged`. It does not count for
        `limit`: fewer heads than that are the end.
        """
        ...

    def scan(self, kind: str, after: str = "", limit: int = 1000, *, trashed: bool = False) -> Heads:
        """Living heads by id, code point by code point, from the first above `after`: changes move none of them.

        With `trashed`, those that were put away instead.

        One that can't be trusted is left out, and named in `damaged`, as by `find`.
        """
        ...

    def kinds(self) -> list[str]:
        """The kinds of which there are, or were, heads; in order."""
        ...

    def search(
        self,
        kind: str,
        query: Node,
        *,
        id: str | None = None,
        tags: Mapping[str, str | None] | None = None,
        newest: bool = False,
        offset: int = 0,
        limit: int = 100,
    ) -> list[Hit]:
        """Entries not voided that match, best first, or newest first by their time; of one head when `id` is given.

        Those of heads that were put away are left out.
        Every entry that was committed before the call is considered.
        """
        ...

    def index(self) -> int:
        """Bring the search index up to date now; the number of entries that were added to it."""
        ...

    def changed(self, since: str | None = None) -> tuple[str, list[Ref]]:
        """Where the store stands now, and which heads changed, or whose logs did, since it stood at `since`.

        Each commit that could not be seen then and can now is told of, whatever times it carries, in whatever order
        commits came to be seen, deletions included. `since` is what any opening of this store answered, by any
        process; None is the beginning of a watch, which tells of nobody. More may be told than changed; of everything
        where the engine can't tell any more. Otherwise the cost does not grow with the store.

        Raises:
            Invalid: `since` is of another store, or no position.
        """
        ...

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` soon after any commit, of any process; late, lost, needless calls are allowed. Returns a stop.

        What `wake` raises is logged: it fails no commit, and no one else who listens.
        """
        ...

    def compact(self) -> None:
        """Give back the space of what was deleted or trimmed, and leave no byte of it in any file, index and log.

        It may take as long as copying the store, while others read and no one writes; nothing that is there changes.

        Raises:
            Unavailable: it could not be done now, or not to the end; nothing was lost.
        """
        ...

    def verify(self) -> list[Problem]:
        """Read everything the engine keeps and say what is damaged."""
        ...

    def info(self) -> Mapping[str, str]:
        """Facts for a person: engine, versions, durability, sizes."""
        ...

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...


@runtime_checkable
class Repairing(Protocol):
    """A backend whose lists could part from what they are made of, and can be made again."""

    def repair(self) -> int:
        """Make the lists again from the heads; how many places were wrong or missing.

        Raises:
            Unavailable: not all could be done; a second call goes on.
        """
        ...


@dataclass(frozen=True, slots=True)
class Location:
    """A parsed store URL. Of a server's, `path` names the database, and `url` can be shown: it lacks the password."""

    scheme: str
    path: str
    params: Mapping[str, str]
    url: str
    hosts: tuple[tuple[str, int | None], ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)


_REDIS = frozenset({"durability", "timeout", "prefix", "shards", "replicas", "blobs"})
PARAMS: Mapping[str, frozenset[str]] = {
    "memory": frozenset(),
    "file": frozenset({"blobs", "durability"}),
    "sqlite": frozenset({"blobs", "durability", "engine", "timeout"}),
    "postgresql": frozenset(
        {"durability", "timeout", "schema", "listen", "read_from", "max_stale", "blobs"}
        | {"sslmode", "sslrootcert", "sslcert", "sslkey"}
    ),
    "redis": _REDIS,
    "rediss": _REDIS | {"sslrootcert"},
}
"""The parameters that each scheme knows."""
SERVERS = ("postgresql", "redis", "rediss")
"""The schemes of stores that are no path on this machine."""
DURABILITIES = ("disk", "process")
SERVER_DURABILITIES = ("replicated", *DURABILITIES)
_WORD = re.compile(r"[A-Za-z0-9_-]{1,40}")


def parse_url(url: str) -> Location:
    """Cut a store URL into its parts.

    `sqlite:///abs/file.db` and `file:///abs/dir` are absolute, `sqlite:file.db` and `file:dir` relative to the
    current directory, `~` is the home; a path that ends in `.db` or `.sqlite` is SQLite's without a scheme.
    `postgresql://user:password@host:port/database` and `redis://host:port/0` name a server; several hosts may stand
    there, with commas between them.

    Raises:
        Invalid: an unknown scheme or parameter; the message names the known ones, and never a password.
    """
    url = as_text(url)
    safe = shown(url).partition("?")[0]  # a secret may have been taken for a parameter
    scheme, colon, _ = url.partition(":")
    if not colon or len(scheme) < 2 or not scheme.isalpha():
        if url.endswith((".db", ".sqlite")):
            return Location("sqlite", os.path.expanduser(as_path(url)), {}, f"sqlite:{url}")
        raise Invalid(
            f"{safe!r} is no store URL; write sqlite:///path/file.db, file:///path/dir or memory://",
            url=safe,
        )
    if scheme not in PARAMS:
        known = ", ".join(f"{name}:" for name in PARAMS)
        raise Invalid(f"no backend for {scheme!r} in {safe!r}; there are {known}", url=safe, scheme=scheme)
    try:
        parts = urlsplit(url)
    except ValueError:  # it would tell all of what stands there
        raise Invalid(f"{safe!r} is no URL: its host can't be read; write host:port, or [::1]:port", url=safe) from None
    if parts.fragment or not url.isprintable():
        raise Invalid(f"{safe!r} holds '#' or a control character, which would cut the path; write %23", url=safe)
    params = _params(scheme, parts.query, safe)
    return _server(parts, params) if scheme in SERVERS else _local(parts, params, url)


def _params(scheme: str, query: str, url: str) -> dict[str, str]:
    params = dict(parse_qsl(query, keep_blank_values=True))
    for name in params:
        if name not in PARAMS[scheme]:
            known = ", ".join(sorted(PARAMS[scheme])) or "none"
            name = name if _WORD.fullmatch(name) else "***"  # the rest of a password that holds '?'
            raise Invalid(f"unknown parameter {name!r} in {url!r}; {scheme}: knows {known}", url=url, parameter=name)
    classes = SERVER_DURABILITIES if scheme in SERVERS else DURABILITIES
    if params.get("durability", "disk") not in classes:
        known = ", ".join(sorted(classes))
        raise Invalid(f"durability={params['durability']!r} in {url!r} is not one of {known}", url=url)
    return params


def _local(parts: SplitResult, params: Mapping[str, str], url: str) -> Location:
    """A store in this machine's files or memory."""
    scheme = parts.scheme
    if parts.netloc:
        rest = shown(url).partition("?")[0].removeprefix(f"{scheme}://")
        hint = f"{scheme}:///{rest} (absolute) or {scheme}:{rest} (relative)"
        raise Invalid(f"{shown(url)!r} names a host; write {hint}", url=shown(url))
    path = as_path(unquote(parts.path, errors="surrogateescape"))
    if "\0" in path:
        raise Invalid(f"{shown(url)!r} holds a NUL character, which no file system takes", url=shown(url))
    if path.startswith("/~"):
        path = path[1:]
    if scheme != "memory" and not path.strip("/"):
        raise Invalid(f"{shown(url)!r} lacks a path; write {scheme}:///path", url=shown(url))
    return Location(scheme, os.path.expanduser(path), params, shown(url))


def _server(parts: SplitResult, params: Mapping[str, str]) -> Location:
    """A store on a server."""
    login, _, address = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    safe = shown(parts._replace(netloc=f"{user}:***@{address}" if colon else parts.netloc).geturl())
    try:
        hosts = tuple(_host(part) for part in address.split(",")) if address else ()
        path = unquote(parts.path.removeprefix("/"), errors="strict")
        login = [unquote(part, errors="strict") for part in (user, password)]
    except ValueError:
        raise Invalid(
            f"{safe!r} is no URL of a server; write host:port, and %25 for % in what is told", url=safe
        ) from None
    if any("\0" in part for part in (path, *login)) or "/" in path:
        raise Invalid(f"{safe!r} names no database; write {parts.scheme}://user@host:port/name", url=safe)
    return Location(
        parts.scheme, path, params, safe, hosts, user=login[0] or None, password=login[1] if colon else None
    )


def _host(part: str) -> tuple[str, int | None]:
    host, port = urlsplit(f"//{part}").hostname, urlsplit(f"//{part}").port
    if not host:
        raise ValueError(f"{part!r} is no host")
    return unquote(host, errors="strict"), port


def open_backend(url: str, text_of: TextOf) -> Backend:
    """The backend that a URL names; only its module is imported.

    Raises:
        Invalid: the URL is wrong.
        Unavailable: the engine can't open it, or what it needs is not installed; the message says how to install it.
    """
    where = parse_url(url)
    if where.scheme == "memory":
        from holdfast.backends.memory import MemoryBackend

        return MemoryBackend(text_of)
    if where.scheme == "file":
        from holdfast.backends.files import FilesBackend

        return FilesBackend(where, text_of)
    if where.scheme == "postgresql":
        require("psycopg", "postgres")
        from holdfast.backends.postgres import PostgresBackend

        return PostgresBackend(where, text_of)
    if where.scheme in ("redis", "rediss"):
        require("redis", "redis")
        from holdfast.backends.redis import RedisBackend

        return RedisBackend(where, text_of)
    from holdfast.backends.sqlite import SQLiteBackend

    return SQLiteBackend(where, text_of)


def require(driver: str, extra: str) -> None:
    """Refuse a store whose driver is not installed.

    Raises:
        Unavailable: it is not; the message says which extra brings it.
    """
    if find_spec(driver) is None:
        raise Unavailable(
            f"this store needs the Python package {driver!r}; pip install 'holdfast[{extra}]'", package=driver
        )


def rehearsed(inner: Backend, text_of: TextOf) -> Backend:
    """A backend over an open one in which everything can be tried, and nothing is stored."""
    from holdfast.backends.rehearsal import Rehearsal

    return Rehearsal(inner, text_of)
