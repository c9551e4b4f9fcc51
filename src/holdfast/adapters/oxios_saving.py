"""How an oxios session becomes lasting: of the whole document that is saved, only what is new is stored, in one commit.

Two who load, change and save the same session lose nothing of each other's. What was said since the load is appended,
behind whatever others appended meanwhile. A field that one of them set holds; if both set it, to different values, the
later save is a `Conflict` and nothing of it is stored. The commit states the revision it was worked out for, and is
worked out again if that is not the one any more. A record's id is made of what it says, so that a save whose answer was
lost may be repeated.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import msgspec

from holdfast import codec
from holdfast.adapters.oxios_types import (
    AgentResponse,
    Base,
    Session,
    SessionId,
    Timestamp,
    TrajectoryRange,
    TrajectoryStepRecord,
    UserMessage,
)
from holdfast.errors import Conflict, Denied, Exists, Invalid
from holdfast.events.redact import masked
from holdfast.formats import rustjson
from holdfast.formats.oxios import (
    AGENT,
    PROGRAM,
    STEPS,
    USER,
    NotRust,
    checked,
    payload_of,
    projects_in,
    title_in,
    to_time,
    woven,
)
from holdfast.formats.oxios_out import HERE, document_of, facts_in
from holdfast.formats.transcript import mapping
from holdfast.heads.info import BYTES, SUMMARY, Tally, body_of, clean, encode_body, info_of, session_ref, tags_of
from holdfast.heads.settings import without
from holdfast.heads.updates import RETRIES, restless
from holdfast.model import AnyPayload
from holdfast.plan import MAX_SAVED, Commit, Entry, Head, Refused, check_id
from holdfast.refusals import refusal
from holdfast.session import Session as Kept
from holdfast.store import Store

_MISSING = object()
_FIELDS = ("active_seed_id", "active_persona_id")


def document_in(session: Session) -> dict[str, Any]:
    """A session as the document that the program writes of it, checked by its rules.

    Raises:
        Invalid: the program could not read it.
    """
    document: dict[str, Any] = {
        "id": str(session.id),
        "user_id": session.user_id,
        USER: [_user(message) for message in session.user_messages],
        AGENT: [_agent(response) for response in session.agent_responses],
        STEPS: [_step(step) for step in session.trajectory_steps],
        "active_seed_id": session.active_seed_id,
        "active_persona_id": session.active_persona_id,
        "created_at": _text(session.created_at),
        "updated_at": _text(session.updated_at),
        "metadata": session.metadata,
    }
    left_out = [name for name in _FIELDS if document[name] is None] + ([] if document[STEPS] else [STEPS])
    try:
        made = checked({name: value for name, value in document.items() if name not in left_out})
        # Only what comes back the same can be kept: no keys but text, no tuples, no numbers that JSON has not.
        return made if made == rustjson.parse(rustjson.pretty(made).encode()) else _not_json(session)
    except (NotRust, TypeError, ValueError) as error:
        raise Invalid(f"session {session.id!r} can't be saved: {error}", session=session.id) from None


def _not_json(session: Session) -> Any:
    raise Invalid(f"session {session.id!r} holds what is no JSON value", session=session.id)


def _text(value: datetime) -> str:
    return Timestamp.of(value).text


def _user(message: UserMessage) -> dict[str, Any]:
    return {"content": message.content, "timestamp": _text(message.timestamp)}


def _agent(response: AgentResponse) -> dict[str, Any]:
    record = {name: getattr(response, name) for name in AgentResponse.__struct_fields__}
    record["timestamp"] = _text(response.timestamp)
    spread = record.pop("trajectory_range")
    return record if spread is None else {**record, "trajectory_range": {"start": spread.start, "end": spread.end}}


def _step(step: TrajectoryStepRecord) -> dict[str, Any]:
    record = {name: getattr(step, name) for name in TrajectoryStepRecord.__struct_fields__}
    return {**record, "timestamp": _text(step.timestamp)}


def session_in(document: Mapping[str, Any], id: str) -> Session:
    """A document as a session, by the id under which it was found. What 1.3.0 does not know stays in the store."""
    session = Session(
        id=SessionId(id),
        user_id=document["user_id"],
        user_messages=[_made(UserMessage, record) for record in document.get(USER, ())],
        agent_responses=[_made(AgentResponse, record) for record in document.get(AGENT, ())],
        trajectory_steps=[_made(TrajectoryStepRecord, record) for record in document.get(STEPS, ())],
        active_seed_id=document.get("active_seed_id"),
        active_persona_id=document.get("active_persona_id"),
        created_at=Timestamp.of(document["created_at"]),
        updated_at=Timestamp.of(document["updated_at"]),
        metadata=_copy(document.get("metadata", {})),
    )
    session.base = base_of(session)
    return session


def _made(kind: Any, record: Mapping[str, Any]) -> Any:
    known = {name: value for name, value in record.items() if name in kind.__struct_fields__}
    known["timestamp"] = Timestamp.of(record["timestamp"])
    if spread := known.get("trajectory_range"):
        known["trajectory_range"] = TrajectoryRange(spread["start"], spread["end"])
    return kind(**known)


def _copy(value: Any) -> Any:
    return codec.decode_json(codec.encode_json(value))


def base_of(session: Session) -> Base:
    """What is stored of a session now that it was loaded or saved."""
    return Base(
        user_id=session.user_id,
        user_messages=tuple(session.user_messages),
        agent_responses=tuple(session.agent_responses),
        trajectory_steps=tuple(session.trajectory_steps),
        active_seed_id=session.active_seed_id,
        active_persona_id=session.active_persona_id,
        created_at=_text(session.created_at),
        updated_at=_text(session.updated_at),
        metadata=_copy(session.metadata),
    )


class Saving:
    """One session on its way into the store.

    Args:
        store: Where to.
        session: What is to be saved.
        id: The id that it has there.
        metadata: What tells the program's id, where that is not in the other.
        user: Whose a new one is, if not its own user's.
    """

    def __init__(self, store: Store, session: Session, id: str, metadata: Mapping[str, Any], user: str | None) -> None:
        self._store = store
        self._session = session
        self._ref = session_ref(id)
        self._metadata = metadata
        self._user = user

    def save(self, *, must: str | None = None) -> None:
        """Store what is new.

        Args:
            must: `exist` creates none, `create` takes none that is there.

        Raises:
            Invalid: the program could not read it, or its steps are not those that a response names.
            Conflict: others set the same field meanwhile, or what was stored before was changed.
            Exists, NotFound, Deleted, Trashed: what `must` says does not hold, or it was deleted since it was loaded.
            Denied: it belongs to another user.
            TooLarge: more than 100,000 records are new; nothing of them is stored.
        """
        document = document_in(self._session)
        _check_ranges(self._session)
        document["metadata"] = without(document["metadata"], self._store.secrets)
        with self._store.large.hold:
            for _ in range(RETRIES):
                head = self._store.backend.get([self._ref])[0]
                commit = self._commit(head, document, must)
                if commit is None:
                    break
                result = self._store.batcher.commit(commit, entries=MAX_SAVED)
                if isinstance(result, Head):
                    break
                if result.why not in ("rev", "known"):
                    raise refusal(result, commit)
            else:
                raise restless(self._ref.id)
        self._session.base = msgspec.structs.replace(base_of(self._session), metadata=_copy(document["metadata"]))

    def _commit(self, head: Head | None, document: dict[str, Any], must: str | None) -> Commit | None:
        """The commit that stores it; None if there is nothing new."""
        if head is None or head.dead:
            if must == "exist" or self._session.base is not None:
                raise refusal(Refused("missing" if head is None else "deleted", head), Commit(ref=self._ref))
            return self._created(head, document)
        if head.trashed:
            raise refusal(Refused("trashed", head), Commit(ref=self._ref))
        if must == "create":
            raise Exists(f"session {self._session.id!r} is there already", session=self._session.id)
        return self._changed(head, document)

    def _created(self, head: Head | None, document: dict[str, Any]) -> Commit:
        entries, tally = self._entries(document, {}, titled=False)
        facts = {name: value for name, value in document.items() if name not in (USER, AGENT, STEPS, "id")}
        metadata = facts.pop("metadata")
        here = {"fields": facts, **({"metadata": metadata} if metadata else {})}
        tags = tags_of(agent=PROGRAM, state="idle", user=self._user or as_user(document["user_id"]))
        tags |= {"created": str(max(to_time(document["created_at"]), 0)), SUMMARY: "0", **_said(metadata)}
        return Commit(
            ref=self._ref,
            at=max(to_time(document["updated_at"]), 0),
            if_rev=0 if head is None else head.rev,
            append=entries,
            add=tally.add,
            tags={**(tally.tags or {}), **tags},
            defaults=tally.defaults,
            body=encode_body({"metadata": {**self._metadata, HERE: here}}),
        )

    def _changed(self, head: Head, document: dict[str, Any]) -> Commit | None:
        info = info_of(head)
        facts = facts_in(info)
        if facts["user_id"] != document["user_id"]:
            raise Denied(f"session {self._session.id!r} belongs to another user", session=self._session.id)
        base = self._session.base or self._adopted(head)
        new = _new_records(self._session, base, document)
        change = _Change(mapping(info.metadata.get(HERE)))
        for name in _FIELDS:
            change.field(name, getattr(base, name), document.get(name), facts.get(name))
        metadata, told = document["metadata"], mapping(facts.get("metadata"))
        for name in {**base.metadata, **metadata}:
            change.say(name, *(where.get(name, _MISSING) for where in (base.metadata, metadata, told)))
        if document["created_at"] != base.created_at:
            raise Conflict(f"when session {self._session.id!r} was created is not to be changed")
        entries, tally = self._entries(new, _counts(base), titled="title" in head.tags, head=head)
        if document["updated_at"] != base.updated_at:
            change.fields["updated_at"] = max(document["updated_at"], facts["updated_at"], key=to_time)
        elif not entries and not change.is_any:
            return None
        body = body_of(head)
        body.pop("v", None)
        body["metadata"] = {**mapping(body.get("metadata")), HERE: change.made()}
        tags = {**(tally.tags or {}), **_said(metadata, before=base.metadata)}
        return Commit(
            ref=self._ref,
            at=max(to_time(document["updated_at"]), 0),
            if_rev=head.rev,
            append=entries,
            add=tally.add,
            tags=tags,
            defaults=tally.defaults,
            body=encode_body(body),
        )

    def _adopted(self, head: Head) -> Base:
        """What is stored, of a session that was not loaded from there: what it does not say is not taken away."""
        mine = self._session
        stored = base_of(session_in(document_of(Kept(self._store, head), damaged="raise").fields, mine.id))
        return msgspec.structs.replace(
            stored,
            active_seed_id=None if mine.active_seed_id is None else stored.active_seed_id,
            active_persona_id=None if mine.active_persona_id is None else stored.active_persona_id,
            created_at=_text(mine.created_at),
            updated_at="",
            metadata={name: value for name, value in stored.metadata.items() if name in mine.metadata},
        )

    def _entries(
        self, document: Mapping[str, Any], before: Mapping[str, int], *, titled: bool, head: Head | None = None
    ) -> tuple[list[Entry], Tally]:
        """The records as entries, and what they add to the head; without those that are stored already."""
        made: list[tuple[str, int, AnyPayload]] = []
        seen = dict(before)
        for array, _, record, at in woven(document):
            told = f"{array}{rustjson.compact(record)}"
            seen[told] = seen.get(told, 0) + 1
            digest = hashlib.sha256(told.encode()).hexdigest()[:32]
            made.append((f"s.{digest}.{seen[told]}", at, payload_of(array, record)))
        if head is not None and made:
            ids = [id for id, _, _ in made]
            stored = {entry.id for entry in self._store.backend.read(self._ref, ids=ids, voided=True)}
            made = [one for one in made if one[0] not in stored]
        secrets = self._store.secrets
        entries = [Entry(id, at, codec.encode(masked(one, secrets), self._store.large)) for id, at, one in made]
        tally = Tally([payload for _, _, payload in made], titled=titled)
        tally.add[BYTES] = sum(len(entry.body) for entry in entries)
        return entries, tally


class _Change:
    """What a save sets, over what was set here before."""

    def __init__(self, here: Mapping[str, Any]) -> None:
        self.fields: dict[str, Any] = dict(mapping(here.get("fields")))
        self._metadata: dict[str, Any] = dict(mapping(here.get("metadata")))
        self._gone: list[str] = list(here.get("gone", []))
        self.is_any = False

    def field(self, name: str, before: Any, now: Any, stored: Any) -> None:
        """Set a field, if it was changed, and by nobody else."""
        if now == before:
            return
        _check_alone(name, before, now, stored)
        self.fields[name] = now
        self.is_any = True

    def say(self, name: str, before: Any, now: Any, stored: Any) -> None:
        """Set one of the metadata, or take it away."""
        if now == before:
            return
        _check_alone(f"metadata {name!r}", before, now, stored)
        self._metadata.pop(name, None)
        self._gone = [other for other in self._gone if other != name]
        if now is _MISSING:
            self._gone.append(name)
        else:
            self._metadata[name] = now
        self.is_any = True

    def made(self) -> dict[str, Any]:
        """What to note in the session's metadata."""
        parts = {"fields": self.fields, "metadata": self._metadata, "gone": self._gone}
        return {name: part for name, part in parts.items() if part}


def _check_alone(what: str, before: Any, now: Any, stored: Any) -> None:
    if stored not in (before, now):
        raise Conflict(
            f"{what} was changed by somebody else since the session was loaded; load it again and decide anew",
            field=what,
            current=None if stored is _MISSING else stored,
        )


def _new_records(session: Session, base: Base, document: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The records of a document that are not in the base, which all that is stored must begin with."""
    new: dict[str, list[Any]] = {}
    for array in (USER, AGENT, STEPS):
        known = cast("Sequence[Any]", getattr(base, array))
        given = cast("Sequence[Any]", getattr(session, array))
        if tuple(given[: len(known)]) != tuple(known):
            raise Conflict(
                f"{array} of session {session.id!r} do not begin with the {len(known)} that are stored; what was said "
                "is appended to only: load the session again, or take messages back with remove_last or rewind",
                session=session.id,
            )
        new[array] = document.get(array, [])[len(known) :]
    return new


def _counts(base: Base) -> dict[str, int]:
    """How often each record is there, by what it says."""
    counts: dict[str, int] = {}
    for array, made in ((USER, _user), (AGENT, _agent), (STEPS, _step)):
        for value in cast("Sequence[Any]", getattr(base, array)):
            told = f"{array}{rustjson.compact(made(value))}"
            counts[told] = counts.get(told, 0) + 1
    return counts


def _check_ranges(session: Session) -> None:
    """Refuse a new response that names steps which are not there."""
    old = 0 if session.base is None else len(session.base.agent_responses)
    for response in session.agent_responses[old:]:
        spread = response.trajectory_range
        if spread is not None and not 0 <= spread.start <= spread.end <= len(session.trajectory_steps):
            raise Invalid(
                f"a response of session {session.id!r} names the steps {spread.start} to {spread.end}, "
                f"of {len(session.trajectory_steps)}",
                session=session.id,
            )


def _said(metadata: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, str | None]:
    """The title and project that metadata give a session, where they are not as before."""
    tags: dict[str, str | None] = {}
    title, projects = title_in(metadata), projects_in({"metadata": metadata})
    if title and (before is None or title != title_in(before)):
        tags["title"] = clean(" ".join(title.split()))[:200]
    if projects and (before is None or projects != projects_in({"metadata": before})):
        tags["project"] = as_user(projects[0])
    return tags


def as_user(value: str) -> str | None:
    """A text as a user or a project of the store; None if it can be none."""
    try:
        check_id(value, "user")
    except Invalid:
        return None
    return value
