"""The judge of a soak: what a store holds in the end, against the records of all who wrote to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from faults.acts import DOCUMENTS, SLOTS, Done
from faults.soaker import SHARED
from faults.work import text_of
from holdfast import Edit, Event, Message, State, Store

SHOWS = ("undo",)


def wrong(store: Store, done: Sequence[Done]) -> list[str]:
    """Everything that is not as it must be."""
    report = store.check()
    found = [f"check: {finding}" for finding in report.findings]
    logs = {info.id: _log(store, info.id) for info in store.sessions(limit=10_000)}
    logs |= {one.session.id: _log(store, one.session.id) for one in store.trash.list(limit=10_000)}
    found += [f"{id} is gone" for id in SHARED if id not in logs]
    for id, log in logs.items():
        found += [f"{id}: {line}" for line in (*_numbers(log), *_hidden(log), *_fenced(log, done))]
    found += [*_errors(done), *_events(logs, done), *_order(logs, done), *_deleted(logs, done)]
    found += [*_metadata(store, done), *_counts(store, done), *_names(store), *_messages(store, logs)]
    return found


def _log(store: Store, id: str) -> list[Event]:
    """Of a fork, what it reads through its parent too."""
    session = store.get(id) or store.trash.get(id)
    assert session is not None
    return list(session.events(include_hidden=True))


def _words(log: Sequence[Event]) -> Iterator[tuple[int, str]]:
    """The seqs at which events of writers stand, and their words."""
    for event in log:
        if isinstance(event.payload, Message):
            yield event.seq, text_of(event).split()[0]


def _numbers(log: Sequence[Event]) -> Iterator[str]:
    if [event.seq for event in log] != list(range(1, len(log) + 1)):
        yield "its numbers have a gap"


def _errors(done: Sequence[Done]) -> Iterator[str]:
    for one in done:
        if error := one.told("error"):
            yield f"{one.who} was told in {one.act}: {error.what}"


def _hidden(log: Sequence[Event]) -> Iterator[str]:
    """In view is what the edits say, one after the other."""
    hidden: set[int] = set()
    for event in log:
        if isinstance(event.payload, Edit):
            for first, last in event.payload.ranges:
                which = range(first, last + 1)
                hidden = hidden - set(which) if event.payload.action in SHOWS else hidden | set(which)
    if (differ := hidden ^ {event.seq for event in log if event.hidden}) and log:
        yield f"events {sorted(differ)[:5]} are hidden and should be shown, or the other way round"


def _fenced(log: Sequence[Event], done: Sequence[Done]) -> Iterator[str]:
    """What was written in a turn stands behind its beginning, and before another begins."""
    tokens = {word: told.what for one in done if (told := one.told("begun")) for word in one.act.words}
    now: str | None = None
    for event in log:
        if isinstance(event.payload, State):
            now = event.payload.turn if event.payload.state == "running" else None
        elif isinstance(event.payload, Message):
            word = text_of(event).split()[0]
            if tokens.get(word, now) != now:
                yield f"{word} at {event.seq} is of turn {tokens[word]}, where {now} ran"


def _events(logs: Mapping[str, Sequence[Event]], done: Sequence[Done]) -> Iterator[str]:
    """What was acknowledged is there once, where it was said to be; what was refused is not."""
    places: dict[str, list[tuple[str, int]]] = {}
    for id, log in logs.items():
        base = _base(id, log)
        for seq, word in _words(log):
            if seq > base:
                places.setdefault(word, []).append((id, seq))
    for one in done:
        for index, word in enumerate(one.act.words):
            found = places.pop(word, [])
            if why := _misplaced(one, index, found):
                yield f"{one.who}: {word} of {one.act.op} {why}; it stands at {found}, told was {one.outcomes}"
    yield from (f"{word} at {found} is of nobody" for word, found in places.items())


def _base(id: str, log: Sequence[Event]) -> int:
    """What a fork reads through its parent ends where its own first event begins, which names the fork's act."""
    if not id.startswith("fork "):
        return 0
    _, who, n = id.split()
    return next((seq - 1 for seq, word in _words(log) if word.startswith(f"w{who}x{n}x")), len(log))


def _misplaced(one: Done, index: int, found: Sequence[tuple[str, int]]) -> str:
    """What is wrong with where a word stands; "" if nothing."""
    if len(found) > 1:
        return "is there twice"
    told, session = one.told("done"), one.act.session
    if one.act.op == "turn":
        parts = {told.last: told.first for told in one.outcomes if told.how == "part"}
        lost = one.told("lost")
        if index in parts:
            return "" if found == [(session, parts[index])] else "was acknowledged"
        if one.told("refused") or (lost and index >= lost.last) or index > len(parts):
            return "was refused" if found else ""
        return ""
    if one.act.op in ("fork", "short"):
        return ""  # it went, or `_deleted` finds it
    if told:
        return "" if found == [(session, told.first + index)] else "was acknowledged"
    if one.told("refused"):
        return "was refused" if found else ""
    return "stands in another session" if found and found[0][0] != session else ""


def _order(logs: Mapping[str, Sequence[Event]], done: Sequence[Done]) -> Iterator[str]:
    """The events of one writer stand in the order in which it wrote them."""
    order = {word: (one.who, one.act.n, index) for one in done for index, word in enumerate(one.act.words)}
    for id, log in logs.items():
        newest: dict[str, tuple[int, int]] = {}
        for seq, word in _words(log):
            who, *place = order.get(word, ("nobody", 0, 0))
            if newest.get(who, (0, 0)) > (place[0], place[1]):
                yield f"{id}: {word} at {seq} stands behind what {who} wrote later"
            newest[who] = place[0], place[1]


def _deleted(logs: Mapping[str, Sequence[Event]], done: Sequence[Done]) -> Iterator[str]:
    """A session that an act made is gone if that was acknowledged, and there if nobody was to delete it."""
    for one in done:
        if one.act.op in ("short", "fork"):
            id = f"{one.act.op} {one.who} {one.act.n}"
            if one.told("deleted") and id in logs:
                yield f"{id} was deleted, and is there"
            if one.told("done") and one.act.words[0] not in [word for _, word in _words(logs.get(id, []))]:
                yield f"{id} was kept, and {one.act.words[0]} is not in it"


def _metadata(store: Store, done: Sequence[Done]) -> Iterator[str]:
    """Each writer's keys have the last value that was acknowledged, or one that was cut off behind it."""
    may: dict[tuple[str, str], set[int]] = {}
    for one in done:
        if one.act.op == "update":
            place = one.act.session, f"{one.who} {one.act.n % SLOTS}"
            if one.told("done"):
                may[place] = set()
            may.setdefault(place, {0}).add(one.act.n)
    held = {id: store.session(id).info().metadata for id in SHARED if store.exists(id)}
    for (id, key), values in may.items():
        if held[id].get(key, 0) not in values:
            yield f"{id}: metadata {key!r} is {held[id].get(key)}, and one of {values} was set last"


def _counts(store: Store, done: Sequence[Done]) -> Iterator[str]:
    """Of those who count by revisions nobody is overwritten."""
    least: Counter[tuple[str, str]] = Counter()
    cut: Counter[tuple[str, str]] = Counter()
    for one in done:
        if one.act.op == "count":
            place = DOCUMENTS[one.act.n % len(DOCUMENTS)], one.who
            least[place] += one.told("done") is not None
            cut[place] += not one.outcomes
    for id in DOCUMENTS:
        there = store.documents.get(id)
        for who in {one.who for one in done}:
            low, held = least[id, who], (there.content if there else {}).get(who, 0)
            if not low <= held <= low + cut[id, who]:
                yield f"{id}: {who} counts {held}, and {low} were acknowledged"


def _names(store: Store) -> Iterator[str]:
    """No two sessions have the same name, and a name finds who has it."""
    named = [(info.name, info.id) for info in store.sessions(limit=10_000) if info.name]
    if len({name for name, _ in named}) != len(named):
        yield f"a name is there twice: {sorted(named)}"
    for name, id in named:
        found = store.get(name=name)
        if found is None or found.id != id:
            yield f"{name!r} finds {found and found.id}, and {id} has it"


def _messages(store: Store, logs: Mapping[str, Sequence[Event]]) -> Iterator[str]:
    for id in SHARED:
        if store.exists(id):
            said = sum(isinstance(event.payload, Message) and not event.hidden for event in logs.get(id, []))
            if (counted := store.session(id).info().counts.messages) != said:
                yield f"{id} counts {counted} messages, and {said} are in view"
