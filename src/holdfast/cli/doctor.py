"""`doctor` and `completion`: is this place fit to keep a store, and does the shell help to name what is in it.

The files of a store are only looked at by name (stat): to open a live SQLite file besides SQLite would drop its locks.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import stat
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from holdfast import __version__
from holdfast.cli.app import FAILURE, App, Command, holdfast, pass_app
from holdfast.cli.replicas import replica_shape
from holdfast.cli.terminal import Span
from holdfast.errors import HoldfastError, NotFound
from holdfast.formats.words import safe_line

if TYPE_CHECKING:
    from holdfast.urls import Location

LITTLE = 256 * 1024 * 1024
"""Bytes of free space below which a disk is called nearly full."""
SAFE = (3, 51, 3)
"""The first SQLite whose WAL can't be reset under a reader."""


@click.command(cls=Command, examples="holdfast doctor\nholdfast --json doctor --store agents.db")
@pass_app
def doctor(app: App) -> None:
    """Versions, the store's place, modes, free space and durability; exit code 1 if something is wrong."""
    from holdfast.urls import SERVERS, default_url, parse_url

    url = app.url or default_url()
    where = parse_url(url)
    problems: list[str] = []
    kept = _served(where, url, problems) if where.scheme in SERVERS else _store(where, url, problems)
    told = {"versions": _versions(), "sqlite": _sqlite(), "store": kept}
    if not told["sqlite"]["fts5"]:
        problems.append("this SQLite has no FTS5, which search needs; install apsw, or a Python with another SQLite")
    if app.json:
        app.data({"ok": not problems, "problems": problems, **told})
    else:
        _tell(app, told, problems)
    if problems:
        raise click.exceptions.Exit(FAILURE)


def _versions() -> dict[str, str | None]:
    try:
        apsw = metadata.version("apsw")
    except metadata.PackageNotFoundError:
        apsw = None
    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return {"holdfast": __version__, "python": python, "sqlite": sqlite3.sqlite_version, "apsw": apsw}


def _sqlite() -> dict[str, bool]:
    db = sqlite3.connect(":memory:")
    try:
        db.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
        fts5 = True
    except sqlite3.Error:
        fts5 = False
    finally:
        db.close()
    return {"fts5": fts5, "wal_reset_bug": sqlite3.sqlite_version_info < SAFE}


def _store(where: Location, url: str, problems: list[str]) -> dict[str, Any]:
    """What is known of the store's place; what is wrong with it goes to `problems`."""
    facts: dict[str, Any] = {"url": where.url, "path": None, "there": False, "mode": None, "folder_mode": None}
    facts |= {"free": None, "backend": None}
    if where.scheme == "memory":
        return facts
    path = os.path.abspath(where.path)
    folder = _nearest(os.path.dirname(path))
    facts |= {"path": path, "there": os.path.exists(path), "folder_mode": _mode(folder)}
    space = os.statvfs(folder)
    facts["free"] = space.f_bavail * space.f_frsize
    if facts["free"] < LITTLE:
        problems.append(f"{folder} has only {facts['free'] // 1024**2:,} MiB of free space")
    if not os.access(folder if not facts["there"] else path, os.W_OK):
        problems.append(f"{path} can't be written by this user")
    if not facts["there"]:
        return facts
    facts["mode"] = _mode(path)
    if int(facts["mode"], 8) & 0o077:
        problems.append(f"{path} has mode {facts['mode']}: others can read it; chmod go= '{path}'")
    facts["backend"], _ = _facts(url, problems)
    return facts


def _served(where: Location, url: str, problems: list[str]) -> dict[str, Any]:
    """What is known of a store on a server; what is wrong with it goes to `problems`."""
    told, replicas = _facts(url, problems)
    unread = [replica for replica in replicas if replica["why"]]
    problems += [f"the replica {replica['address']} is not read from: {replica['why']}" for replica in unread]
    facts: dict[str, Any] = {"url": where.url, "path": None, "there": told is not None, "mode": None}
    return facts | {"folder_mode": None, "free": None, "backend": told, "replicas": replicas}


def _facts(url: str, problems: list[str]) -> tuple[dict[str, str] | None, list[dict[str, Any]]]:
    """What the backend of a store says of itself, None if it can't be opened; and of its replicas."""
    from holdfast.opening import existing

    try:
        with existing(url) as store:
            return dict(store.backend.info()), [replica_shape(replica) for replica in store.replicas()]
    except NotFound:
        return {"state": "not there yet"}, []
    except HoldfastError as error:
        problems.append(f"the store can't be opened: {error.message}")
        return None, []


def _nearest(folder: str) -> str:
    """The folder, or the nearest one above it that is there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _mode(path: str) -> str:
    return f"{stat.S_IMODE(os.stat(path).st_mode):04o}"


def _tell(app: App, told: dict[str, Any], problems: list[str]) -> None:
    sqlite, store = told["sqlite"], told["store"]
    rows = {name: value for name, value in told["versions"].items() if value}
    rows["full-text"] = "FTS5 is there" if sqlite["fts5"] else "no FTS5"
    if sqlite["wal_reset_bug"]:
        rows["WAL"] = (
            "this SQLite (before 3.51.3) has the WAL-reset bug; holdfast guards its own checkpoints against it"
        )
    rows["store"] = store["url"] if store["there"] or store["path"] is None else f"{store['url']} (not there yet)"
    if store["path"]:
        modes = f"mode {store['mode']}, its folder {store['folder_mode']}" if store["mode"] else "its folder is there"
        rows["place"] = f"{store['path']}, {modes}, {store['free'] / 1024**3:,.1f} GiB free"
    backend: dict[str, str] = store["backend"] or {}
    for name, value in backend.items():
        if name != "path":
            rows[name.replace("_", " ")] = value
    width = max(map(len, rows))
    for name, value in rows.items():
        app.line(Span(name.ljust(width), "bold"), "  ", safe_line(value))
    for problem in problems:
        app.line(Span("✗ ", "bold red"), safe_line(problem))
    if not problems:
        app.line(Span("✓ ", "bold green"), "nothing is wrong")


@click.command(
    cls=Command,
    examples="""
    eval "$(holdfast completion bash)"              # in ~/.bashrc
    eval "$(holdfast completion zsh)"               # in ~/.zshrc
    holdfast completion fish > ~/.config/fish/completions/holdfast.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_app
def completion(app: App, shell: str) -> None:
    """Print the script that completes commands, options and the names of sessions."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    script = found(holdfast, {}, "holdfast", "_HOLDFAST_COMPLETE").source()
    if app.json:
        app.data({"shell": shell, "script": script})
    else:
        app.text(script)
