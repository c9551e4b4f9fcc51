"""`holdfast demo` as a newcomer runs it: a real kill, a real resume, nothing twice."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import holdfast
from holdfast.cli.agent import SCRIPT
from shell import Shell


def test_the_demo_kills_resumes_and_shows_within_seconds(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    start = time.monotonic()
    done = shell.ok("demo")
    assert time.monotonic() - start < 20  # about two on a quiet machine
    assert "SIGKILL" in done.err
    assert "finished before" in done.err
    assert "was left open" in done.err
    assert "all sound" in done.err
    assert "The note says 1,200 candela" in done.out
    assert not (tmp_path / "store.db").exists()  # HOLDFAST_URL is the user's own store: the demo leaves it alone


def test_the_resumed_agent_runs_no_finished_tool_again(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    told = shell.ok("demo", "--json", "--store", shell.url).json
    assert set(told) == {"session", "killed_at", "runs", "events", "sound", "store", "kept"}
    runs = told["runs"]
    assert {name: runs[name] for name in ("c1", "c2", "c4", "c5")} == {"c1": 1, "c2": 1, "c4": 1, "c5": 1}
    assert runs["c3"] == 2  # it was running when its agent was killed
    with holdfast.open(shell.url) as store:
        session = store.resolve("demo")
        messages = session.messages()
        asked = Counter(call.id for message in messages for call in message.tool_calls)
        answered = Counter(result.id for message in messages for result in message.tool_results)
        events = list(session.events())
    once = {turn.id: 1 for turn in SCRIPT}
    assert (asked, answered) == (once, once)
    assert [event.seq for event in events] == list(range(1, told["events"] + 1))
    # The log up to the kill is what it was: the open call's answer comes right behind it.
    assert json.loads(events[told["killed_at"]].raw)["call_id"] == "c3"
