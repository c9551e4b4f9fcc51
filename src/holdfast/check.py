"""Read a whole store and name what is damaged; change nothing.

Three layers are asked: the engine about itself, every record about its checksum and decoding, and every session about
its sums: numbers without a gap, counters that agree with the events, large values that are all there. A store may be
written to meanwhile: what seems wrong with a session counts only if the session stood still while it was read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from holdfast import codec
from holdfast.artifacts.sweeping import Swept, sweep
from holdfast.backend import Problem, Repairing
from holdfast.documents.docheads import DOC, all_documents, id_of, owner_of, problem_of
from holdfast.errors import Corrupt, Invalid, NotFound
from holdfast.finding.listing import all_heads
from holdfast.heads.info import COPYING, SESSION, Tally, check_head, is_counted, session_ref
from holdfast.history.ancestry import FORKED, first_of, segments, stored
from holdfast.history.audit import Audit
from holdfast.history.branching import pins
from holdfast.history.checkpoints import hide, left_over
from holdfast.model import AnyPayload, Damaged, Message, Step
from holdfast.plan import Entry, Head, Ref
from holdfast.salvage import logged_head
from holdfast.storage import Storage

T = TypeVar("T")

PAGE = 1000
TRIES = 5
"""How often a session is read in which something seems wrong, as long as it changes meanwhile."""


WRONG = "a checkpoint does not agree with the events, so forks begin with wrong counters; a sweep takes it away"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `session` and `seq` are None where it can't be told, or it is not about one.

    Of a document, `document` is the id, and `user` whose it is.
    """

    what: str
    session: str | None = None
    seq: int | None = None
    document: str | None = None
    user: str | None = None


class CheckReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a check read, and what it found.

    `unfinished` names what is under way or was interrupted and does no harm: forks that were begun and not ended, which
    the same fork again, any other fork of the session, or its deletion clears up; copies, which the same copy ends; and
    deletions that left checkpoints, which a sweep deletes. `swept` is what a sweep came to, `repaired` how many places
    in the engine's lists were wrong or missing, and are right now.
    """

    sessions: int
    events: int
    findings: tuple[Finding, ...]
    unfinished: tuple[Finding, ...] = ()
    documents: int = 0
    swept: Swept | None = None
    repaired: int | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def check_store(
    store: Storage, session: str | None = None, *, sweeps: bool = False, repairs: bool = False
) -> CheckReport:
    """Check everything, or one session; if it is to repair, make the engine's lists again before, if it is to sweep,
    delete the blobs that nothing refers to behind."""
    repaired = _repaired(store, session) if repairs else None
    if sweeps and session is not None:
        raise Invalid("a sweep is of a whole store; leave the session out")
    findings: list[Finding] = []
    if session is None:
        findings += map(_problem, store.backend.verify())
    unfinished: list[Finding] = []
    sessions = events = 0
    for ref, head in _listed(_heads(store, session), findings):
        checked = _check_damaged(store, ref) if head is None else _check_living(store, head)
        if checked is None:
            continue
        if head is not None:
            unfinished += [
                Finding(session=ref.id, what=f"its fork {child!r} was not finished") for child in pins(head).values()
            ]
            if COPYING in head.tags:
                unfinished.append(Finding(session=ref.id, what="its copy was not finished; the same copy goes on"))
        sessions += 1
        count, found = checked
        events += count
        # The engine and the codec may both have met the same damage; one line for it is enough.
        told = {(f.session, f.seq or f.what) for f in findings}
        findings += [f for f in found if (f.session, f.seq or f.what) not in told]
    if session is None:
        unfinished += [
            Finding(session=id, what="it is gone, and its checkpoints are left; a sweep deletes them")
            for _, id in _listed(left_over(store), findings)
        ]
    documents = 0 if session is not None else _check_documents(store, findings)
    if sweeps:
        for finding in findings:
            if finding.what == WRONG and finding.session is not None and finding.seq is not None:
                hide(store, finding.session, finding.seq)
    return CheckReport(
        sessions=sessions,
        events=events,
        findings=tuple(findings),
        unfinished=tuple(unfinished),
        documents=documents,
        swept=sweep(store) if sweeps else None,
        repaired=repaired,
    )


def _repaired(store: Storage, session: str | None) -> int:
    if session is not None:
        raise Invalid("a repair is of a whole store; leave the session out")
    if not isinstance(store.backend, Repairing):
        raise Invalid("this store has no lists that could be made again: its engine keeps them with the sessions")
    return store.backend.repair()


def _problem(problem: Problem) -> Finding:
    """What an engine found, as a finding."""
    ref, seq, what = problem
    if ref is None or ref.kind == SESSION:
        return Finding(session=ref.id if ref else None, seq=seq, what=what)
    if ref.kind == DOC:
        return Finding(document=id_of(ref), user=owner_of(ref), what=what)
    return Finding(what=f"{ref.kind} {ref.id!r}: {what}")


def _check_documents(store: Storage, findings: list[Finding]) -> int:
    """Read every document; how many there are. What is wrong and was not found yet is added to the findings."""
    damaged = {(finding.document, finding.user) for finding in findings}
    count = 0
    for ref, head in _listed(all_documents(store), findings):
        count += 1
        what = "its head is damaged" if head is None else _document_problem(store, head)
        id, user = id_of(ref), owner_of(ref)
        if what is not None and (id, user) not in damaged:
            findings.append(Finding(document=id, user=user, what=what))
    return count


def _document_problem(store: Storage, head: Head) -> str | None:
    """What is wrong with a document, unless it was changed while it was read."""
    while (what := problem_of(store, head)) is not None:
        try:
            now = store.backend.get([head.ref])[0]
        except Corrupt as error:
            return error.message
        if now is None or now.dead:
            return None
        if now.rev == head.rev:
            return what
        head = now
    return None


def _heads(store: Storage, session: str | None) -> Iterator[tuple[Ref, Head | None]]:
    """The sessions to check, with None for a head that can't be trusted."""
    if session is not None:
        try:
            head = store.head(session, trashed=True)
        except Corrupt:
            head = None
        yield session_ref(session), head
        return
    met: set[Ref] = set()
    for heads in (heads for trashed in (False, True) for heads in all_heads(store.backend, trashed=trashed)):
        yield from ((ref, None) for ref in heads.damaged if ref not in met)
        yield from ((head.ref, head) for head in heads)
        met.update(heads.damaged)  # one between two pages may be named by both


def _listed(pages: Iterable[T], findings: list[Finding], session: str | None = None) -> Iterator[T]:
    """What a list of the engine's names, or a log holds, up to where it can't be read; that is a finding, told once."""
    try:
        yield from pages
    except Corrupt as error:
        if error.message not in [finding.what for finding in findings]:
            findings.append(Finding(session=session, what=error.message))


def _check_damaged(store: Storage, ref: Ref) -> tuple[int, list[Finding]] | None:
    """What is wrong with a session whose head can't be trusted: that, and what its log tells."""
    try:
        head = store.backend.get([ref])[0]
    except Corrupt as error:
        count, found = _check_session(store, logged_head(store.backend, ref))
        return count, [Finding(session=ref.id, what=error.message), *found]
    return None if head is None or head.dead else _check_living(store, head)


def _check_living(store: Storage, head: Head) -> tuple[int, list[Finding]] | None:
    """What is wrong with a session, though it may be changed while it is read; None if it was deleted."""
    count, found = 0, list[Finding]()
    lasting: set[int | None] | None = None
    for _ in range(TRIES):
        count, found = _check_session(store, head)
        if not found:
            return count, found
        try:
            now = store.backend.get([head.ref])[0]
        except Corrupt:
            return count, found
        if now is None or now.dead:
            return None
        if now.rev == head.rev:
            return count, found
        seqs = {finding.seq for finding in found}
        lasting = seqs if lasting is None else lasting & seqs
        head = now
    # It never stood still. Sums can't be told then, but an event that was wrong every time is.
    return count, [f for f in found if f.seq is not None and f.seq in (lasting or ())]


def _check_session(store: Storage, head: Head) -> tuple[int, list[Finding]]:
    id = head.ref.id
    findings: list[Finding] = []
    try:
        check_head(head)
    except Corrupt as error:
        findings.append(Finding(session=id, what=f"the head can't be decoded: {error.message}"))
    # A session goes on while it is being read: look only at what the head speaks of.
    expected = max(head.base, head.trim) + 1
    sums: dict[str, int] = {}
    counted = COUNTED if is_counted(head) else COUNTED_IN_0_1
    audit = _audit(store, head, counted)
    for entry in _listed(_entries(store, head), findings, id):
        if entry.seq != expected:
            findings.append(Finding(session=id, seq=expected, what=f"events {expected} to {entry.seq - 1} are missing"))
        expected = entry.seq + 1
        findings += _check_entry(store, id, entry, sums, audit)
    if expected <= head.last:
        findings.append(Finding(session=id, seq=expected, what=f"events {expected} to {head.last} are missing"))
    sound = not findings and _add_inherited(store, head, sums, findings)
    if sound and audit is not None:
        findings += [Finding(session=id, seq=seq, what=WRONG) for seq in audit.wrong()]
    if COPYING in head.tags:
        return expected - 1 - max(head.base, head.trim), findings  # the counters come with its copy's last commit
    if sound and (wrong := {n: c for n, c in head.counts.items() if n in counted and sums.get(n, 0) != c}):
        told = ", ".join(f"{n} is {c} and should be {sums.get(n, 0)}" for n, c in wrong.items())
        findings.append(Finding(session=id, what=f"the counters do not agree with the events: {told}"))
    return expected - 1 - max(head.base, head.trim), findings


def _audit(store: Storage, head: Head, counted: Sequence[str]) -> Audit | None:
    """What compares the session's checkpoints with its events; None if what was hidden can't be told."""
    try:
        return Audit(store, head, counted)
    except (Corrupt, NotFound):
        return None  # the events, or those of a parent, tell why


def _add_inherited(store: Storage, head: Head, sums: dict[str, int], findings: list[Finding]) -> bool:
    """Count what a fork reads through its parents, too; False if what the session began with can't be counted."""
    if FORKED not in head.tags:
        return not head.trim and not head.base
    try:
        lineage = segments(store, head)
        if lineage[1].head.last < head.base:
            parent = lineage[1].head.ref.id
            findings.append(Finding(session=head.ref.id, what=f"it begins behind event {head.base} of {parent!r}"))
            return False
        for entry in stored(store, msgspec.structs.replace(head, last=head.base)):
            if entry.fault:
                return False  # the session whose event it is says so
            _count(entry, codec.decode(entry.body, store.large), sums)
    except (Corrupt, NotFound) as error:
        findings.append(Finding(session=head.ref.id, what=error.message))
        return False
    return first_of(lineage) == 0


COUNTED_IN_0_1 = ("messages", "steps", "tool_calls", "errors", "input_tokens", "output_tokens", "cost")
COUNTED = (*COUNTED_IN_0_1, "calls", "cost_computed", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")


def _entries(store: Storage, head: Head) -> Iterator[Entry]:
    after = 0
    while entries := store.backend.read(head.ref, after=after, upto=head.last, limit=PAGE, voided=True):
        yield from entries
        after = entries[-1].seq


def _count(entry: Entry, payload: AnyPayload, sums: dict[str, int]) -> None:
    if not (entry.void and isinstance(payload, Message | Step)):  # what was spent stays counted
        for name, count in Tally([payload]).add.items():
            sums[name] = sums.get(name, 0) + count


def _check_entry(store: Storage, id: str, entry: Entry, sums: dict[str, int], audit: Audit | None) -> list[Finding]:
    if entry.fault:
        return [Finding(session=id, seq=entry.seq, what=entry.fault)]
    try:
        payload = codec.decode(entry.body, store.large)
    except Corrupt as error:
        return [Finding(session=id, seq=entry.seq, what=error.message)]
    if isinstance(payload, Damaged):
        return [Finding(session=id, seq=entry.seq, what=payload.reason)]
    _count(entry, payload, sums)
    if audit is not None:
        audit.take(entry, payload)
    findings: list[Finding] = []
    for value in codec.larges(payload):
        try:
            with value.open() as stream:
                while stream.read(1 << 20):
                    pass
        except Corrupt as error:
            findings.append(Finding(session=id, seq=entry.seq, what=f"a large value: {error.message}"))
    return findings
