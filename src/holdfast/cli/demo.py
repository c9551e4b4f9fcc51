"""`holdfast demo`: a little agent is recorded, killed half-way and resumed, and then looked at.

The parent only listens: all it knows is what the agent's process reported before it died. It kills with SIGKILL while
a tool is running, so that a call stands in the log without its answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any

import click

from holdfast.cli.app import App, Command, pass_app

KILL_AT = "c3"
"""The call during which the agent is killed."""
NOTES = {
    "harbour.txt": "The harbour opens at six.\nBoats to the island leave every hour.\n",
    "island.txt": "The lighthouse has a lamp of 1,200 candela.\nIt was built in 1891.\n",
}


@click.command(
    cls=Command,
    examples="""
    holdfast demo
    holdfast demo --store sqlite:demo.db     # and keep what it recorded
    """,
)
@pass_app
def demo(app: App) -> None:
    """Record a small agent's session, kill it half-way, resume it, then list, search and show it.

    The agent is scripted but its tools run on this machine, in a temporary folder; it needs no keys. The store is a
    temporary one unless --store names yours.
    """
    from holdfast.backend import shown

    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as place:
        folder = os.path.join(place, "notes")
        os.mkdir(folder)
        for name, text in NOTES.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)
        url = app.url or f"sqlite://{place}/demo.db"
        told = _record(app, url, folder)
        safe = shown(url)
        if app.json:
            app.data({**told, "store": safe, "kept": app.url is not None})
            return
        _look(app, url, told["session"])
    app.say("\nThat is all it takes: store.session(id) and session.append(...), see docs/API.md. Try next:")
    if app.url:
        app.say(f"  holdfast --store {safe} session show @last --full")
        app.say(f"  holdfast --store {safe} export -f html -o demo.html @last")
    app.say("  holdfast import            # your coding agents' transcripts")
    app.say("  holdfast --help")


def _record(app: App, url: str, folder: str) -> dict[str, Any]:
    from holdfast import opening
    from holdfast.cli.agent import RUNS
    from holdfast.heads.info import new_id

    id = new_id()
    app.say(f"An agent starts; each line below was on disk before it was said. Session {id}\n")
    killed_at = seq = 0
    with _agent(url, id, folder) as reports:
        for told in reports:
            seq = told.get("seq", seq)
            _say(app, told)
            if told.get("running") == KILL_AT:
                killed_at = seq
                break  # leaving the block kills it
    app.say(
        f"\nIts process is killed with SIGKILL while a tool runs: event {killed_at} is the last it had acknowledged."
    )
    app.say("A new process resumes:\n")
    with _agent(url, id, folder) as reports:
        for told in reports:
            _say(app, told)
    with opening.open(url) as store:
        last = store.head(id).last
        sound = store.check(session=id).ok
    app.say(f"\n{last} events, {'all sound' if sound else 'damaged'}; none is lost, none is there twice.")
    with open(os.path.join(os.path.dirname(folder), RUNS), encoding="utf-8") as file:
        runs = Counter(line.strip() for line in file)
    return {"session": id, "killed_at": killed_at, "runs": runs, "events": last, "sound": sound}


def _say(app: App, told: dict[str, Any]) -> None:
    seq = f"#{told['seq']}" if "seq" in told else ""
    app.say(f"  {seq:>4}  {told['say']}")


@contextlib.contextmanager
def _agent(url: str, id: str, folder: str) -> Generator[Iterator[dict[str, Any]]]:
    """The agent's process as the reports it makes; at the end of the block it, and what it runs, is killed."""
    import msgspec

    running = subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, "-m", "holdfast.cli.agent", url, id, folder],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    pipe = running.stdout
    if pipe is None:
        raise RuntimeError("a pipe was asked for")
    ended = False

    def reports() -> Iterator[dict[str, Any]]:
        nonlocal ended
        for line in pipe:
            yield msgspec.json.decode(line)
        ended = True

    try:
        yield reports()
    finally:
        if not ended:
            os.killpg(running.pid, signal.SIGKILL)
        pipe.close()
        code = running.wait()
    if ended and code:
        raise RuntimeError(f"the agent ended with exit code {code}")


def _look(app: App, url: str, id: str) -> None:
    """List, search and show by the command itself."""
    environment = {**os.environ, "PAGER": "cat"}
    sys.stdout.flush()
    for args in (["session", "list"], ["search", "lighthouse candela", "--session", id], ["session", "show", id]):
        shown = " ".join(f"'{a}'" if " " in a else a for a in args)
        app.say(f"\n$ holdfast {shown}")
        subprocess.run([sys.executable, "-m", "holdfast.cli", "--store", url, *args], env=environment, check=True)  # noqa: S603  # our own command
