"""Write a store of each persistent backend as this version does, and what is in it: tests/data/formats/<version>.

    python scripts/make_format_fixture.py

A folder of a released version is never written again: its stores must open for ever, as they are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import holdfast
from holdfast import Event, Large, assistant, codec, custom, note, reasoning, step, tool_call, tool_result, usage, user

FORMATS = Path(__file__).resolve().parent.parent / "tests" / "data" / "formats"
SERIES = holdfast.__version__.rpartition(".")[0]
"""Versions that differ in their last number only share their formats."""
STORES = {"sqlite": "sqlite://{}/store.db", "files": "file://{}/store"}
"""The URL of each persistent backend's store, in a folder."""
QUERIES = ("order", '"order 7"', "résumé", "lookup OR hologram", "built -nothing", "gone")
AT = 1_767_225_600_000_000
"""The time of the first event: 2026-01-01, in microseconds."""


def write(url: str) -> None:
    """Use whatever leaves a trace in the files."""
    with holdfast.open(url) as store:
        session = store.session(
            "a/b ünïcode", user="ada", name="first", agent="helpdesk", project="shop", labels=["x", "y"],
            metadata={"ticket": 7}, config={"model": "m"}, created_at=AT,
        )  # fmt: skip
        payloads: list[Any] = [
            user("Where is order 7?\nMy Résumé says \0 and \ud800."),
            assistant(reasoning("Let me think."), "Let me look.", tool_call("c1", "lookup", {"order": 7, "n": 2**70})),
            tool_result("c1", {"rows": ["a long row"] * 10_000}, duration=12_000),
            step("build", {"target": "all"}, "built\n" * 20_000, call_id="c2", duration=5, exit_code=0),
            step("test", output=Large(opener=lambda: _numbers(), form="text")),
            usage("m", 100, 20, cost=holdfast.usd("0.0021")),
            custom("x.deploy", {"sha": "abc"}),
            note("imported", metadata={"by": "me"}),
        ]
        for number, payload in enumerate(payloads):
            session.append(Event(payload=payload, at=AT + number, id=f"id-{number}" if number % 2 else None))
        later = b'{"v":1,"type":"hologram","beam":{"color":"red"},"text":"hologram"}'
        session.append(Event(payload=holdfast.Other(data=json.loads(later)), raw=later, at=AT + 100))
        session.append(Event(payload=user("taken back"), at=AT + 101))
        session.remove_last()
        session.update(title="Order 7", labels={"y": False}, metadata={"more": [1, None]})
        store.session("empty", created_at=AT)
        store.session("deleted", created_at=AT).append(user("gone"))
        store.delete("deleted")
        store.index()


def _numbers() -> Any:
    """Bytes of more than two chunks that do not shrink to nothing."""
    import io

    return io.BytesIO(b"".join(b"%d\n" % n for n in range(400_000)))


def contents(store: holdfast.Store) -> dict[str, Any]:
    """All that a store says of itself, as JSON."""
    sessions: dict[str, Any] = {}
    for info in store.sessions():
        events = [
            {
                "seq": event.seq,
                "at": event.at,
                "id": event.id,
                "hidden": event.hidden,
                "raw": event.raw.decode(),
                "large": [[value.size, _digest(value)] for value in codec.larges(event.payload)],
            }
            for event in store.session(info.id).events(include_hidden=True)
        ]
        shown = {name: getattr(info, name) for name in info.__struct_fields__ if name != "counts"}
        counts = {name: getattr(info.counts, name) for name in info.counts.__struct_fields__}
        sessions[info.id] = {"info": {**shown, "counts": counts}, "events": events}
    hits = {query: sorted([hit.session, hit.seq] for hit in store.search(query)) for query in QUERIES}
    return json.loads(json.dumps({"sessions": sessions, "search": hits}))


def _digest(value: Large) -> str:
    with value.open() as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # a readable buffer


def main() -> int:
    """Write the fixtures of this version."""
    for name, url in STORES.items():
        folder = FORMATS / SERIES / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write(url.format(folder))
        with holdfast.open(url.format(folder)) as store:
            told = contents(store)
        for lock in folder.rglob("*-lock"):
            lock.unlink()  # it names the process and the machine that wrote last
        expected = json.dumps(told, indent=1, ensure_ascii=True, sort_keys=True)
        folder.with_suffix(".json").write_text(expected + "\n", encoding="utf-8")
        print(f"{folder}: {sum(len(s['events']) for s in told['sessions'].values())} events")
    return 0


if __name__ == "__main__":
    sys.exit(main())
