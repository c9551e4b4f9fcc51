"""Where a store is: what a URL says, and where it is unless one says it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from holdfast.errors import Invalid, NotFound
from holdfast.paths import as_path, as_text
from holdfast.shown import shown


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
    create: bool = True
    """Whether a store that is not there is begun."""

    def absent(self) -> NotFound:
        """The error of a store that is not there, and is not to be begun."""
        return NotFound(f"there is no store at {self.url} yet", url=self.url)


_REDIS = frozenset({"durability", "timeout", "prefix", "shards", "replicas", "blobs"})
PARAMS: Mapping[str, frozenset[str]] = {
    "memory": frozenset(),
    "file": frozenset({"blobs", "durability"}),
    "sqlite": frozenset({"blobs", "durability", "engine", "timeout"}),
    "postgresql": frozenset(
        {"durability", "timeout", "schema", "listen", "words", "read_from", "max_stale", "blobs"}
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
            f"{safe!r} is no store URL; write sqlite:///path/file.db, file:///path/dir, "
            "postgresql://user@host/database, redis://host/0 or memory://",
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
    given = parse_qsl(query, keep_blank_values=True)
    params = dict(given)
    for name in params:
        if name not in PARAMS[scheme]:
            known = ", ".join(sorted(PARAMS[scheme])) or "none"
            name = name if _WORD.fullmatch(name) else "***"  # the rest of a password that holds '?'
            raise Invalid(f"unknown parameter {name!r} in {url!r}; {scheme}: knows {known}", url=url, parameter=name)
        if sum(name == other for other, _ in given) > 1:
            raise Invalid(f"the parameter {name!r} stands more than once in {url!r}", url=url, parameter=name)
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
    if not parts.netloc:
        safe = f"{parts.scheme}://{safe.removeprefix(f'{parts.scheme}:').removeprefix('//')}"
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


def default_url() -> str:
    """`HOLDFAST_URL`, else a SQLite file in the user's data directory."""
    if url := os.environ.get("HOLDFAST_URL"):
        return url
    import platformdirs

    path = os.path.join(platformdirs.user_data_dir("holdfast"), "holdfast.db").replace("\\", "/")
    return "sqlite://" + quote(os.fsencode(path), safe="/:~")  # a home may hold '#', '?' or '%', and any bytes
