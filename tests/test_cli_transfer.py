"""Import, export and copy by the command: exact bundles, documents that are safe to open, partial failures told."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import sqlite3
import stat
import subprocess
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import zstandard

import holdfast
from holdfast import Large, Session, assistant, custom, note, reasoning, step, tool_call, tool_result, usage, user
from holdfast.cli import transfer
from holdfast.moving.bundlefiles import lines_of
from holdfast.plan import Commit, Head, Ref
from shell import Shell

HOSTILE = "</script></pre></style>--><img src=x onerror=alert(1)>\"'`&lt;\x1b[31m\u202e"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def fill(session: Session) -> None:
    session.append(user("Where is order 7?"))
    session.append(assistant(reasoning("Hm."), "Let me look.", tool_call("c1", "lookup", {"order": 7})))
    session.append(tool_result("c1", "line\n" * 40, is_error=True, duration=1_200_000))
    session.append(note(Large.from_stream(io.BytesIO(b"large\n" * 20_000))))


def hostile(session: Session) -> None:
    session.append(holdfast.message(HOSTILE, HOSTILE, reasoning(HOSTILE), name=HOSTILE, metadata={HOSTILE: HOSTILE}))
    session.append(assistant(tool_call(HOSTILE, HOSTILE, {HOSTILE: HOSTILE})))
    session.append(tool_result(HOSTILE, {HOSTILE: HOSTILE}, name=HOSTILE, is_error=True))
    session.append(
        holdfast.message("user", holdfast.Uri(uri=HOSTILE), holdfast.Blob(mime_type=HOSTILE, content="eA=="))
    )
    session.append(holdfast.message("user", holdfast.OtherPart(data={"type": HOSTILE, HOSTILE: HOSTILE})))
    session.append(step(HOSTILE, HOSTILE, HOSTILE, call_id="z", error=HOSTILE, artifacts=[HOSTILE]))
    session.append(
        custom("x." + HOSTILE, HOSTILE),
        note(HOSTILE),
        usage(HOSTILE.replace("\x1b", "")),
        holdfast.Summary(content=HOSTILE),
    )
    session.append(holdfast.State(state=HOSTILE, reason=HOSTILE), holdfast.Artifact(name=HOSTILE, uri=HOSTILE))
    session.append(note(Large.from_stream(io.BytesIO(HOSTILE.encode() * 4000))))


@pytest.fixture
def order(shell: Shell) -> Shell:
    with holdfast.open(shell.url) as store:
        fill(store.session("order-7", user="ada"))
    return shell


def test_a_bundle_goes_out_and_comes_back_the_same(order: Shell) -> None:
    bundle = order.ok("export", "order-7").out
    other = f"sqlite://{order.place}/other.db"
    done = order.ok("import", "-", "--store", other, "--json", stdin=bundle).json
    assert [(f["session"], f["events"], f["error"]) for f in done["items"]] == [("order-7", 4, None)]
    assert order.ok("export", "order-7", "--store", other).out == bundle
    order.ok("export", "--all", "-o", "b.jsonl")
    again = order.ok("import", "b.jsonl", "--store", other)
    assert again.out == ""
    assert again.err == "0 new events from 0 of 1 file, 0 failed\n"


def test_an_export_is_private_whole_or_not_there_and_replaces_nothing_unasked(order: Shell) -> None:
    order.ok("export", "order-7", "-o", "a.html")
    path = order.place / "a.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("<!doctype html>")
    path.write_text("mine")
    assert order("export", "order-7", "-o", "a.html").code == 4
    assert path.read_text() == "mine"
    order.ok("export", "order-7", "-o", "a.html", "--force")
    assert path.read_text() != "mine"
    assert order("export", "nobody", "-o", "b.html").code == 3
    assert sorted(os.listdir(order.place))[0] == "a.html"
    assert not [name for name in os.listdir(order.place) if "tmp" in name or name == "b.html"]


class Seen(HTMLParser):
    """The tags, attributes and text of a document."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_html_shows_hostile_text_and_runs_none_of_it(shell: Shell) -> None:
    identifier = HOSTILE.replace("\x1b", "")
    with holdfast.open(shell.url) as store:
        session = store.session(
            identifier, user=HOSTILE, name=HOSTILE, title=HOSTILE, agent=HOSTILE, project=HOSTILE, parent=HOSTILE
        )
        hostile(session)
    page = shell.ok("export", "-f", "html", "@last").out
    seen = Seen()
    seen.feed(page)
    assert seen.open == []
    assert seen.tags <= {
        "html", "head", "meta", "title", "style", "body", "header", "main", "article", "h1", "h2", "p", "pre",
        "details", "summary",
    }  # fmt: skip
    assert seen.attributes <= {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert seen.text.count("<img src=x onerror=alert(1)>") > 15
    assert "url(" not in page
    assert not [c for c in page if (c < " " and c != "\n") or "\x7f" <= c <= "\x9f" or c == "\u202e"]


def test_the_policy_of_the_html_allows_its_own_style_and_nothing_else(order: Shell) -> None:
    page = order.ok("export", "-f", "html", "order-7").out
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1] == f"default-src 'none'; style-src 'sha256-{digest}'"
    assert "prefers-color-scheme" in page or "color-scheme: light dark" in page
    assert "<details>" in page  # forty lines of output are folded, and there
    assert page.count("line\n") >= 39
    assert page.count("large\n") >= 19_999


def test_a_document_of_several_sessions_has_them_all(order: Shell) -> None:
    with holdfast.open(order.url) as store:
        store.session("second").append(user("Something else"))
    for form in ("md", "html"):
        text = order.ok("export", "--all", "-f", form).out
        assert "Where is order 7?" in text
        assert "Something else" in text


def test_markdown_reads_well_and_no_text_breaks_out(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        session = store.session("s", title="# a *title*")
        fill(session)
        session.append(user("# not a heading\n```\nopen fence"))
        session.append(step("run", output="```\n````\nfences\n"))
    text = shell.ok("export", "-f", "md", "s").out
    lines = text.splitlines()
    assert lines[0] == r"# \# a \*title\*"
    assert len([line for line in lines if line.startswith("## ")]) == 6
    assert "> # not a heading" in lines
    fence = lines.index("`````")
    assert lines[fence + 1 : fence + 5] == ["```", "````", "fences", "`````"]
    assert "→ lookup  ✗ 1.2 s" in text
    assert text.count("> large\n") == 20_000


def test_a_damaged_event_is_exported_as_such_with_exit_code_5(order: Shell) -> None:
    db = sqlite3.connect(order.place / "store.db")
    db.execute("UPDATE entry SET body = zeroblob(20) WHERE seq = 2")
    db.commit()
    db.close()
    for form in ("md", "html"):
        done = order("export", "-f", form, "order-7")
        assert done.code == 5
        assert "damaged" in done.out
    done = order("export", "order-7")
    assert done.code == 5
    back = order("import", "-", "--store", "memory://", stdin=done.out)
    assert back.code == 8
    assert "was damaged when it was written" in back.err
    assert order("copy", order.url, "sqlite:c.db").code == 5


def test_copy_is_exact_repeatable_and_tells_conflicts(order: Shell) -> None:
    with holdfast.open(order.url) as store:
        store.session("second").append(user("Something else"))
    assert order.ok("copy", order.url, "file:folder").out.count("new event") == 2
    again = order.ok("copy", order.url, "file:folder")
    assert (again.out, again.err) == ("", "2 sessions equal in both stores, 0 failed\n")
    assert order.ok("export", "order-7").out == order.ok("export", "order-7", "--store", "file:folder").out
    order.ok("append", "second", "mine", "--store", "file:folder")
    done = order("copy", order.url, "file:folder", "--json")
    assert done.code == 8
    told = {item["session"]: item["error"] for item in done.json["items"]}
    assert told["order-7"] is None
    assert told["second"]["type"] == "Conflict"
    assert order("copy", order.url, "file:folder", "--session", "second").code == 4
    assert order("copy", "sqlite:typo.db", "file:folder").code == 3
    assert not (order.place / "typo.db").exists()


def test_an_import_counts_files_and_tells_an_empty_one(order: Shell) -> None:
    three(order)
    order.ok("export", "--all", "-o", "all.jsonl")
    assert order.ok("import", "all.jsonl", "--store", "sqlite:b.db").err.endswith("from 1 of 1 file, 0 failed\n")
    assert order.ok("import", "all.jsonl", "--store", "sqlite:b.db").err == "0 new events from 0 of 1 file, 0 failed\n"
    assert "usual places" not in order.ok("import", "-").err


def three(order: Shell) -> None:
    """Two more sessions, and a store `full.db` that can't take the one in the middle."""
    with holdfast.open(order.url) as store:
        store.session("second").append(user("Second"))
        store.session("third").append(user("Third"))
    order.ok("init", "--store", "sqlite:full.db")
    db = sqlite3.connect(order.place / "full.db")
    db.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON head WHEN new.id = 'second' BEGIN SELECT RAISE(FAIL, 'no room'); END"
    )
    db.commit()
    db.close()


def ids(order: Shell, url: str) -> list[str]:
    return sorted(item["id"] for item in order.ok("session", "list", "--json", "--store", url).json["items"])


def test_a_store_that_fails_ends_a_copy_at_once_and_what_was_done_is_told(order: Shell) -> None:
    three(order)
    done = order("copy", order.url, "sqlite:full.db", "--json")
    assert done.code == 6
    assert "no room" in done.err
    assert [item["session"] for item in done.json["items"]] == ["third"]
    assert ids(order, "sqlite:full.db") == ["third"]


def test_a_store_that_fails_ends_an_import_of_bundles_at_once(order: Shell) -> None:
    three(order)
    for name in ("third", "second", "order-7"):
        order.ok("export", name, "-o", f"{name}.jsonl")
    done = order("import", "third.jsonl", "second.jsonl", "order-7.jsonl", "--store", "sqlite:full.db")
    assert done.code == 6
    assert "no room" in done.err
    assert ids(order, "sqlite:full.db") == ["third"]


def of_version_2(bundle: bytes) -> bytes:
    head, rest = bundle.split(b"\n", 1)
    text = head.replace(b'"holdfast":1', b'"holdfast":2')
    crc = zlib.crc32(b"{" + text[18:])
    return b'{"crc":"%08x"%s\n%s' % (crc, text[17:], rest)


def test_a_bundle_of_another_version_stops_no_other_file(order: Shell) -> None:
    order.ok("export", "order-7", "-o", "good.jsonl")
    (order.place / "v2.jsonl").write_bytes(of_version_2((order.place / "good.jsonl").read_bytes()))
    for files in (("good.jsonl", "v2.jsonl"), ("v2.jsonl", "good.jsonl")):
        done = order("import", *files, "--json", "--store", f"sqlite:{files[0]}.db")
        assert done.code == 8
        told = {item["path"]: item for item in done.json["items"]}
        assert (told["good.jsonl"]["events"], told["good.jsonl"]["error"]) == (4, None)
        assert "version 2" in told["v2.jsonl"]["error"]
        assert done.json["failed"] == 1


def test_a_bundle_that_can_not_be_read_stops_no_other_file(order: Shell) -> None:
    order.ok("export", "order-7", "-o", "good.jsonl")
    with (order.place / "written").open("wb") as unreadable:
        running = order.start(
            "import", "-", "good.jsonl", "--json", "--store", "sqlite:new.db", stdin=unreadable, stderr=subprocess.PIPE
        )
        out, _ = running.communicate(timeout=30)
    told = {item["path"]: item for item in json.loads(out)["items"]}
    assert running.returncode == 8
    assert told["-"]["error"]
    assert told["good.jsonl"]["events"] == 4


CLAUDE = (
    b'{"type":"user","uuid":"u1","parentUuid":null,"sessionId":"11111111-1111-4111-8111-111111111111","cwd":"/w",'
    b'"timestamp":"2026-01-01T00:00:00.000Z","version":"2.0.0","message":{"role":"user","content":"Hello Claude"}}\n'
)


@pytest.mark.parametrize("form", ["jsonl", "md", "html"])
def test_a_dash_writes_to_stdout(order: Shell, form: str) -> None:
    plain = order.ok("export", "-f", form, "order-7")
    dashed = order.ok("export", "-f", form, "-o", "-", "order-7")
    assert (dashed.out, dashed.err) == (plain.out, "")
    assert "Where is order 7?" in dashed.out
    assert not (order.place / "-").exists()


@pytest.mark.parametrize("which", [("--all",), ("order-7", "other")])
@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.zst"])
def test_an_exported_bundle_tells_its_end(order: Shell, which: tuple[str, ...], name: str) -> None:
    order.ok("session", "new", "other")
    order.ok("export", *which, "-o", name)
    with (order.place / name).open("rb") as file:
        lines = list(lines_of(file))
    ends = [number for number, line in enumerate(lines, 1) if b'","end":' in line[:25]]
    assert len(ends) == 2
    order.ok("import", name, "--store", "sqlite:whole.db")
    (order.place / "cut.jsonl").write_bytes(b"".join(lines[: ends[0]]))
    cut = order("import", "cut.jsonl", "--store", "sqlite:cut.db")
    assert cut.code == 8
    assert f"it ends after line {ends[0]}, and its last line is missing" in cut.err
    order.ok("import", name, "--store", "sqlite:cut.db")
    assert order.ok("restore", name, "--store", "sqlite:restored.db").code == 0


def test_import_says_what_it_takes_where_it_found_nothing_or_a_bundle(order: Shell) -> None:
    (order.place / "there").mkdir()
    (order.place / "there" / "notes.txt").write_text("nothing for it")
    nothing = order.ok("import", "there").err
    for what in ("nothing was in there", "Codex CLI", "oxios", "a3s-code", "bundles", "*.jsonl"):
        assert what in nothing
    order.ok("export", "order-7", "-o", "there/bundle.jsonl")
    found = order("import", "there")
    assert (found.code, "a bundle; it is imported when it is named itself" in found.err) == (8, True)
    assert order("import", "there/bundle.jsonl").code == 0


def test_import_finds_transcripts_takes_them_once_and_names_what_it_can_not_take(shell: Shell) -> None:
    nothing = shell.ok("import")
    for what in ("no transcripts", "Claude Code", "Codex CLI", "zeroclaw", "oxios", "a3s-code", "bundles"):
        assert what in nothing.err
    folder = shell.place / ".claude" / "projects" / "-w"
    folder.mkdir(parents=True)
    (folder / "11111111-1111-4111-8111-111111111111.jsonl").write_bytes(CLAUDE)
    first = shell.ok("import", "--json").json
    assert (first["failed"], len(first["items"])) == (0, 1)
    assert first["events"] >= 1
    assert "Hello Claude" in shell.ok("session", "show", "@last").out
    assert shell.ok("import", "--json").json["events"] == 0
    done = shell("import", str(folder), "absent.jsonl")
    assert done.code == 8
    assert "absent.jsonl" in done.err
    assert "1 failed" in done.err


def test_all_sessions_are_also_those_that_become_active_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2_500  # more than two pages
    with holdfast.open(f"sqlite://{tmp_path}/store.db?durability=process") as store:
        names = [Ref("session", f"s{number:04}") for number in range(count)]
        store.backend.commit([Commit(ref=ref, at=number, if_rev=0) for number, ref in enumerate(names)])

        def awaking(turn: Callable[..., list[Head]]) -> Callable[..., list[Head]]:
            def page(*arguments: Any, **options: Any) -> list[Head]:
                found = turn(*arguments, **options)
                store.backend.commit([Commit(ref=ref, at=count) for ref in (names[0], names[-1])])
                return found

            return page

        monkeypatch.setattr(store.backend, "find", awaking(store.backend.find))
        monkeypatch.setattr(store.backend, "scan", awaking(store.backend.scan))
        damaged = list[str]()
        assert list(transfer._ids(store, damaged, "jsonl")) == [ref.id for ref in names]
        told = list(transfer._ids(store, damaged, "md"))
        assert damaged == []
        assert sorted(told) == [ref.id for ref in names]
        assert told[2:] == [ref.id for ref in reversed(names[1:-1])]  # the newest first


@pytest.mark.parametrize("form", ["jsonl", "md", "html"])
def test_a_session_that_is_deleted_while_all_are_exported_stops_nothing(tmp_path: Path, form: str) -> None:
    with holdfast.open(f"sqlite://{tmp_path}/store.db") as store:
        for id in ("a", "b", "c"):
            store.session(id).append(user(f"I am {id}"))
        damaged = list[str]()
        ids = list(transfer._ids(store, damaged, form))
        assert (sorted(ids), damaged) == (["a", "b", "c"], [])
        store.delete("b")
        written, gone = io.BytesIO(), list[str]()
        transfer._write(store, ids, form, False, written, gone, None)
        assert gone == ["b"]
        text = written.getvalue().decode()
        assert "I am a" in text
        assert "I am c" in text
        assert "I am b" not in text
        with pytest.raises(holdfast.Deleted):  # one that was named is missed
            transfer._write(store, ids, form, False, io.BytesIO(), None, None)


def test_an_import_says_what_it_did_not_take_and_why(shell: Shell) -> None:
    folder = shell.place / "files"
    folder.mkdir()
    (folder / "empty.jsonl").touch()
    done = shell("import", str(folder))
    assert "empty.jsonl: skipped, it is empty" in done.err


def test_whose_a_bundle_is_stays_so(shell: Shell) -> None:
    shell.ok("append", "a", "Hi", "--create", "--user", "ann")
    shell.ok("export", "a", "-o", "a.jsonl")
    refused = shell("import", "a.jsonl", "--user", "bob")
    assert refused.code == 2
    assert "keep their users" in refused.err
    assert shell.ok("--json", "session", "list").json["items"][0]["user"] == "ann"


def test_an_export_whose_name_says_so_is_packed(order: Shell) -> None:
    plain = order.ok("export", "order-7").out.encode()
    order.ok("export", "order-7", "-o", "order.jsonl.zst")
    packed = (order.place / "order.jsonl.zst").read_bytes()
    assert zstandard.ZstdDecompressor().stream_reader(packed).read() == plain
    order.ok("import", "order.jsonl.zst", "--store", "sqlite:other.db")
    order.ok("export", "order-7", "-o", "order.md.zst")
    page = zstandard.ZstdDecompressor().stream_reader((order.place / "order.md.zst").read_bytes()).read()
    assert page.decode() == order.ok("export", "-f", "md", "order-7").out


def test_a_packed_bundle_that_was_cut_off_is_told(order: Shell) -> None:
    order.ok("export", "order-7", "-o", "order.jsonl.zst")
    packed = (order.place / "order.jsonl.zst").read_bytes()
    for end in (4, len(packed) // 2, len(packed) - 5, len(packed) - 1):
        (order.place / "cut.jsonl.zst").write_bytes(packed[:end])
        done = order("import", "cut.jsonl.zst", "--store", "sqlite:other.db")
        assert (done.code, "cut off" in done.err) == (8, True), (end, done)
        done = order("import", "-", "--store", "sqlite:other.db", stdin=packed[:end])
        assert (done.code, "cut off" in done.err) == (8, True), (end, done)
    (order.place / "two.jsonl.zst").write_bytes(packed + packed)  # as `cat` joins them
    order.ok("import", "two.jsonl.zst", "--store", "sqlite:other.db")
