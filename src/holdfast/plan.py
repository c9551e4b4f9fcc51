"""The meaning of a commit, as one pure function.

Everything stored is a `Head` that may own a log of `Entry`s, and a commit changes exactly one head and its log. A
backend takes its lock, loads the head and asks which entry ids it knows, calls `plan`, and writes what comes back. It
supplies atomicity and durability, never semantics; so all backends mean the same.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import msgspec

from holdfast.errors import Invalid, TooLarge

MAX_ID = 512
"""Bytes of UTF-8 that an id, a tag's name or value may take (a tag's value: four times that)."""
MAX_ENTRY = 8 * 1024 * 1024
"""Bytes of one entry's or head's body."""
MAX_ENTRIES = 10_000
"""Entries in one commit that appends."""
MAX_SAVED = 100_000
"""Entries in one commit that saves a session as a whole, which may not be torn. Every backend holds so many: the bytes
of a commit are limited by `MAX_BATCH` all the same."""
MAX_BATCH = 64 * 1024 * 1024
"""Bytes of all bodies in one commit."""
MAX_TAGS = 256
"""Tags in one commit."""
MAX_HEAD_TAGS = 1024
"""Tags on one head, however many commits put them there."""
MAX_COUNTERS = 256
"""Counters of one head."""
MAX_COUNT, MIN_COUNT = 2**63 - 1, 1 - 2**63
"""Between these a counter stays."""
MAX_BASE = 2**62
"""Largest seq that a log may start behind, so that there is always room for more."""
TRASHED = "trashed"
"""Tag of a head that was put away: lists and searches leave it out, and only a commit that says in `if_tags` what it
expects of this tag changes it. So a late writer is refused, whoever it is and whatever it writes."""
FIRST_TIME, LAST_TIME = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999, which calendars can tell, in microseconds since 1970 UTC."""


class Ref(NamedTuple):
    """The name of a head: its kind (`session`, `doc`) and an id, exact to the code point."""

    kind: str
    id: str


class Entry(msgspec.Struct, frozen=True):
    """One line of a log. `id` is the idempotency key its writer gave, "" for none; `at` is in microseconds UTC.

    `void` hides it from the common view. `fault` says why its bytes can't be trusted, "" when they can.
    """

    id: str
    at: int
    body: bytes
    seq: int = 0
    void: bool = False
    fault: str = ""


class Head(msgspec.Struct, frozen=True, dict=True):
    """The small changing part: `rev` counts its changes, `last` is the seq of its newest entry, `base` where its own
    log starts (entries are numbered from `base + 1`), `trim` up to where the log was forgotten, `at` its last activity.
    `dead` marks a tombstone: it was deleted, and refuses late writers.

    Its `__dict__` is for what follows from it, so that it need not be worked out again.
    """

    ref: Ref
    rev: int = 0
    last: int = 0
    base: int = 0
    trim: int = 0
    at: int = 0
    tags: Mapping[str, str] = {}
    counts: Mapping[str, int] = {}
    body: bytes = b""
    dead: bool = False

    @property
    def trashed(self) -> bool:
        """Whether it was put away: it is in the trash."""
        return TRASHED in self.tags


class Range(NamedTuple):
    """Entries from `first` up to and with `last`, to hide (or, with `hide=False`, to show again)."""

    first: int
    last: int
    hide: bool = True


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One atomic change of one head and its log.

    Preconditions: `if_rev` (0: must not be there), `if_last`, `if_tags` (None: the tag must be absent).
    Changes: `tags` (None removes one), `defaults` (set only where absent), `add` (to counters), `body`, `append`,
    `void`, `trim` (forget entries up to), `base` (only when creating: where the log starts), `delete` (with if_rev=0 it
    leaves a tombstone where there never was a head, so that nobody creates one).
    `at` moves the last activity forward, never back; 0 leaves it.
    """

    ref: Ref
    at: int = 0
    if_rev: int | None = None
    if_last: int | None = None
    if_tags: Mapping[str, str | None] | None = None
    tags: Mapping[str, str | None] | None = None
    defaults: Mapping[str, str] | None = None
    add: Mapping[str, int] | None = None
    body: bytes | None = None
    append: Sequence[Entry] = ()
    void: Sequence[Range] = ()
    trim: int | None = None
    base: int = 0
    delete: bool = False


Why = Literal["missing", "deleted", "trashed", "rev", "last", "tags", "known", "range", "full", "denied"]


class Refused(NamedTuple):
    """Why a commit was not made: nothing was written. `head` is the current one.

    missing: no such head; deleted: a tombstone; trashed: it was put away; rev, last, tags: that precondition failed;
    known: an appended id is in the log already; range: `void`, `trim` or `base` speak of entries that are not there;
    full: the head would have more tags or counters than a head may. `plan` never says denied: one user's view of a
    store does, of another's head.
    """

    why: Why
    head: Head | None


class Planned(NamedTuple):
    """What to write: the new head, and the new entries with their numbers."""

    head: Head
    entries: Sequence[Entry]


def plan(head: Head | None, known: Collection[str], commit: Commit) -> Planned | Refused:
    """What a commit comes to on a head.

    Args:
        head: The current head, a tombstone included; None if there never was one.
        known: Those ids of `commit.append` (that are not "") which the log holds already.
        commit: The change, which `validate` let pass.
    """
    if head is None:
        if commit.if_rev != 0:
            return Refused("missing", None)
        head = Head(ref=commit.ref, base=commit.base, last=commit.base)
    elif head.dead:
        # A tombstone gives way only to someone who has seen it; numbers go on, so that none is used twice.
        if commit.if_rev != head.rev or commit.delete or commit.base:
            return Refused("deleted", head)
        head = Head(ref=head.ref, rev=head.rev, last=head.last, base=head.last, at=0)
    elif known:
        return Refused("known", head)
    elif TRASHED in head.tags and TRASHED not in (commit.if_tags or ()):
        return Refused("trashed", head)
    elif why := precondition(head, commit):
        return Refused(why, head)
    else:
        return _applied(head, commit)
    # Created: its log is empty, so there is nothing to hide or forget.
    if commit.if_last is not None and head.last != commit.if_last:
        return Refused("last", None)
    if commit.if_tags and any(value is not None for value in commit.if_tags.values()):
        return Refused("tags", None)
    if commit.void or commit.trim is not None or (commit.delete and commit.base):
        return Refused("range", None)
    planned = _applied(head, commit)
    return planned if isinstance(planned, Planned) else Refused(planned.why, None)


def precondition(head: Head, commit: Commit) -> Why | None:
    """The precondition of a commit that does not hold on a living head."""
    if commit.if_rev is not None and commit.if_rev != head.rev:
        return "rev"
    if commit.if_last is not None and commit.if_last != head.last:
        return "last"
    if commit.if_tags and any(head.tags.get(name) != value for name, value in commit.if_tags.items()):
        return "tags"
    if commit.void:
        lowest = max(head.base, head.trim) + 1
        if any(r.first < lowest or r.last > head.last for r in commit.void):
            return "range"
    if commit.base or (commit.trim is not None and not head.base <= commit.trim <= head.last):
        return "range"
    return None


def _applied(head: Head, commit: Commit) -> Planned | Refused:
    if commit.delete:
        dead = Head(
            ref=head.ref, rev=head.rev + 1, last=head.last, base=head.last, at=max(head.at, commit.at), dead=True
        )
        return Planned(dead, ())
    tags, counts = head.tags, head.counts
    # A head that an earlier version let grow beyond may stay so, and shrink.
    if commit.tags or commit.defaults:
        tags = _tags(tags, commit)
        if len(tags) > MAX_HEAD_TAGS and len(tags) > len(head.tags):
            return Refused("full", head)
    if commit.add:
        counts = _counts(counts, commit.add)
        if len(counts) > MAX_COUNTERS and len(counts) > len(head.counts):
            return Refused("full", head)
    last, at, trim = head.last, commit.at, commit.trim
    entries: list[Entry] = []
    for entry in commit.append:
        last += 1
        entries.append(Entry(entry.id, entry.at, entry.body, last, entry.void))
    changed = Head(
        head.ref,
        head.rev + 1,
        last,
        head.base,
        head.trim if trim is None else max(head.trim, trim),
        at if at > head.at else head.at,
        tags,
        counts,
        head.body if commit.body is None else commit.body,
    )
    return Planned(changed, entries)


def _tags(tags: Mapping[str, str], commit: Commit) -> Mapping[str, str]:
    defaults, patch = commit.defaults, commit.tags
    if defaults and any(name not in tags for name in defaults):
        tags = {**defaults, **tags}
    if not patch or all(tags.get(name) == value for name, value in patch.items()):
        return tags  # the same object: a backend sees at once that it has no tag to write
    merged: dict[str, str | None] = {**tags, **patch}
    return {name: value for name, value in merged.items() if value is not None}


def _counts(counts: Mapping[str, int], add: Mapping[str, int]) -> Mapping[str, int]:
    summed = dict(counts)
    for name, more in add.items():
        summed[name] = count = summed.get(name, 0) + more
        if count.bit_length() > 63:
            summed[name] = MAX_COUNT if count > 0 else MIN_COUNT
    return summed


def validate(commit: Commit, entries: int = MAX_ENTRIES) -> None:
    """Refuse, before any backend sees it, a commit that not every backend could hold.

    Args:
        commit: The change.
        entries: How many entries it may have: `MAX_ENTRIES`, or `MAX_SAVED`.

    Raises:
        Invalid: an id, name or number that can't be stored, or fields that contradict each other.
        TooLarge: a stated limit is exceeded.
    """
    try:
        checked = commit.ref in _FIT
    except TypeError:  # what is no text may have no hash
        checked = False
    if not checked:
        check_id(commit.ref.kind, "kind")
        check_id(commit.ref.id, "id")
        _remember(commit.ref)
    if not 0 <= commit.at <= LAST_TIME:
        raise Invalid(f"the time {commit.at} is outside the years 1970 to 9999; it counts microseconds", at=commit.at)
    if commit.append:
        _check_entries(commit, entries)
    if commit.body is not None and len(commit.body) > MAX_ENTRY:
        raise TooLarge(f"the head's body takes {len(commit.body):,} bytes, the limit is {MAX_ENTRY:,}", limit=MAX_ENTRY)
    if commit.tags:
        _check_tags(commit.tags)
    if commit.defaults:
        _check_tags(commit.defaults)
    if commit.add:
        _check_add(commit.add)
    if commit.void and any(not 1 <= r.first <= r.last <= MAX_COUNT for r in commit.void):
        raise Invalid("a range to hide must run from a first to a last seq, from 1 on", ranges=list(commit.void))
    if commit.base:
        _check_base(commit)
    if commit.delete and (commit.append or commit.tags or commit.body is not None):
        raise Invalid("a commit that deletes can't also write", ref=commit.ref)


_FIT: set[Ref | str] = set()
"""Names that were checked already: the same few come with every commit."""


def _remember(name: Ref | str) -> None:
    if len(_FIT) >= 8192:
        _FIT.clear()
    _FIT.add(name)


def _check_base(commit: Commit) -> None:
    if not 0 <= commit.base <= MAX_BASE:
        raise Invalid(f"the base {commit.base} is outside 0 … 2**62", ref=commit.ref)
    if commit.if_rev != 0:
        raise Invalid("base can only be given when a head is created (if_rev=0)", ref=commit.ref)


def _check_add(add: Mapping[str, int]) -> None:
    if not _FIT.issuperset(add):
        for name in add:
            check_id(name, "counter")
            _remember(name)
    for name, more in add.items():
        if more.bit_length() > 63:
            raise Invalid(f"counter {name!r} can't grow by more than ±2**63", name=name)


def _check_entries(commit: Commit, limit: int) -> None:
    append = commit.append
    if len(append) > limit:
        raise TooLarge(f"{len(append):,} entries in one batch, the limit is {limit:,}", limit=limit)
    total = 0
    for entry in append:
        size = len(entry.body)
        total += size
        if size > MAX_ENTRY:
            raise TooLarge(f"an entry takes {size:,} bytes, the limit is {MAX_ENTRY:,}", size=size, limit=MAX_ENTRY)
        id = entry.id
        if id and not (id.isascii() and id.isprintable() and len(id) <= MAX_ID):
            check_id(id, "event id")  # ids of entries are never the same: they would only push others out of its cache
        if not FIRST_TIME <= entry.at <= LAST_TIME:
            raise Invalid(f"the time {entry.at} is outside the years 1 to 9999; it counts microseconds", at=entry.at)
    if total > MAX_BATCH:
        raise TooLarge(f"the batch takes {total:,} bytes, the limit is {MAX_BATCH:,}", size=total, limit=MAX_BATCH)
    if len(append) > 1:
        ids = [entry.id for entry in append if entry.id]
        if len(ids) != len(set(ids)):
            raise Invalid("two events of one batch carry the same id", ref=commit.ref)


def _check_tags(tags: Mapping[str, str | None] | Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise TooLarge(f"{len(tags)} tags, the limit is {MAX_TAGS}", limit=MAX_TAGS)
    for name, value in tags.items():
        check_id(name, "tag")
        if value:
            check_text(value, f"tag {name!r}", MAX_ID * 4)


def check_id(value: object, what: str) -> None:
    """Refuse an id that some backend or file system could not hold exactly.

    Ids may hold any character but control characters and lone surrogates; they are compared code point by code point.

    Raises:
        Invalid: no text, empty, or with such a character.
        TooLarge: more than `MAX_ID` bytes of UTF-8.
    """
    if not isinstance(value, str):
        raise Invalid(f"the {what} must be text, not {type(value).__name__}", value=value)
    if not (value.isascii() and value.isprintable() and 0 < len(value) <= MAX_ID):
        _check_exact(value, what)


@lru_cache(8192)  # the same ids come with every commit
def _check_exact(value: str, what: str) -> None:
    if not value:
        raise Invalid(f"the {what} is empty; give it at least one character", value=value)
    check_text(value, what, MAX_ID)
    if any(unicodedata.category(c) == "Cc" for c in value):
        raise Invalid(f"the {what} {value[:80]!r} holds a control character; leave it out", value=value)


def check_text(value: object, what: str, limit: int) -> None:
    """Refuse text that has no UTF-8, holds NUL, or takes more than `limit` bytes."""
    if not isinstance(value, str):
        raise Invalid(f"the {what} must be text, not {type(value).__name__}", value=value)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise Invalid(
            f"the {what} {value[:80]!r} holds a lone surrogate, which has no UTF-8 form", value=value
        ) from None
    if size > limit:
        raise TooLarge(
            f"the {what} {value[:40]!r}… takes {size:,} bytes, the limit is {limit:,}", size=size, limit=limit
        )
    if "\0" in value:
        raise Invalid(f"the {what} {value[:80]!r} holds a NUL character", value=value)
