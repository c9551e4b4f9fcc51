"""oxios's `StateStore` over a holdfast store, without `await`: see `oxios`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from holdfast.adapters.kept import kept_sessions
from holdfast.adapters.oxios_saving import Saving, document_in, session_in
from holdfast.adapters.oxios_types import (
    PruneConfig,
    PruneThrottle,
    Session,
    SessionSummary,
    Timestamp,
    check_count,
)
from holdfast.errors import Corrupt, Denied, Exists, Invalid, NotFound
from holdfast.formats import rustjson
from holdfast.formats.oxios import (
    PROGRAM,
    NotRust,
    checked,
    key_of,
    name_in,
    projects_in,
    time_text,
    title_in,
)
from holdfast.formats.oxios_folder import AGENTS, SESSIONS
from holdfast.formats.oxios_out import document_of, facts_in
from holdfast.formats.transcript import mapping
from holdfast.formats.zeroclaw import fitted
from holdfast.heads.info import SessionInfo, check_user
from holdfast.plan import check_id
from holdfast.retention.policies import Chosen, Policy
from holdfast.retention.retention import Pruned, PrunePlan
from holdfast.session import Session as Kept
from holdfast.store import Store

PAGE = 1000
DEFAULT = "default"
"""The place whose documents have no prefix."""


def validate_category(category: str) -> None:
    """Refuse what is no category: empty, with an empty part, `.`, `..` or a backslash in it.

    Raises:
        Invalid, TooLarge: it is none.
    """
    check_id(category, "category")
    if "\\" in category or any(part in ("", ".", "..") for part in category.split("/")):
        raise Invalid(f"invalid category name: {category!r}; write it like cron/jobs", category=category)


def validate_name(name: str) -> None:
    """Refuse what can be no name of a document or session: empty, `..`, with a slash, backslash or control character.

    Raises:
        Invalid, TooLarge: it is none.
    """
    check_id(name, "name")
    if name == ".." or "/" in name or "\\" in name:
        raise Invalid(f"invalid file name: {name!r}", name=name)


class BlockingStateStore:
    """The sessions and documents of one place in a store. Safe in threads; the store stays the caller's to close.

    Args:
        store: Where they are kept.
        place: What names this set of sessions and documents. `holdfast.formats.zeroclaw.place_of(path)` is the place of
            what was imported from there. The documents of the default place are those of `store.documents` itself,
            those of another are under `oxios/<place>/`.
        user: Whose the sessions are that it creates, if not the user's that each names.

    Every method raises what `Store`, `Session` and `Documents` raise, `Corrupt` for what can't be read among it, and
    `Invalid` for names, categories and places that can't be any.
    """

    def __init__(self, store: Store, place: str = DEFAULT, *, user: str | None = None) -> None:
        check_id(place, "place")
        if "/" in place:
            raise Invalid(f"the place {place!r} holds a slash, which ends it in the ids of its sessions", place=place)
        self._store = store
        self._place = place
        self._user = store.user or check_user(user)
        self._start = f"{PROGRAM}:{place}/"
        self._documents = "" if place == DEFAULT else f"{PROGRAM}/{place}/"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._place} in {self._store!r}>"

    def session_id(self, session_id: str) -> str:
        """The id that a session has in the store."""
        return f"{PROGRAM}:{name_in(self._place, session_id)}"

    def session(self, session_id: str) -> Kept | None:
        """The session itself, with all that holdfast keeps of it; None if it is not there."""
        if "/" in session_id or "\\" in session_id or session_id in ("", ".."):
            validate_name(session_id)
        return self._store.get(self.session_id(session_id))

    def document_id(self, category: str, name: str, ending: str) -> str:
        """The id that a document has in the store; `ending` is json or md."""
        validate_category(category)
        validate_name(name)
        return f"{self._documents}{category}/{name}.{ending}"

    # Documents

    def save_markdown(self, category: str, name: str, content: str) -> None:
        """Save text under a category, byte for byte; it replaces what was there."""
        self._store.documents.write(self.document_id(category, name, "md"), content.encode("utf-8", "surrogatepass"))

    def load_markdown(self, category: str, name: str) -> str | None:
        """The text under a category; None if it is not there."""
        found = self._store.documents.get(self.document_id(category, name, "md"))
        return None if found is None else found.text

    def save_json(self, category: str, name: str, data: Any) -> None:
        """Save a value as JSON under a category, as serde_json writes it; under `sessions` it is a session, whole.

        Raises:
            Invalid: it is no JSON value; or it is to be a session, and is none or another one's.
        """
        id = self.document_id(category, name, "json")
        if category != SESSIONS:
            self._store.documents.write(id, rustjson.pretty(_plain(data)).encode())
            return
        try:
            session = data if isinstance(data, Session) else session_in(checked(_plain(data)), name)
        except NotRust as error:
            raise Invalid(f"under {SESSIONS!r} only sessions are saved: {error}", name=name) from None
        if session is not data:
            session.base = None
        if session.id != name or (session is not data and _plain(data)["id"] != name):
            raise Invalid(f"session {session.id!r} is not to be saved as {name!r}", name=name)
        self.save_session(session)

    def load_json(self, category: str, name: str, kind: Any = Any) -> Any:
        """The value under a category; None if it is not there.

        Args:
            category, name: Which one. Under `sessions` it is a session's document.
            kind: A type that msgspec can convert to, or `Session`.

        Raises:
            Invalid: the value is none of that kind.
        """
        id = self.document_id(category, name, "json")
        if kind is Session:
            return self.load_session(name)
        if category == SESSIONS:
            kept = self.session(name)
            return None if kept is None else document_of(kept, damaged="raise").fields
        found = self._store.documents.get(id)
        if found is None:
            return None
        try:
            return msgspec.convert(found.content, kind)
        except msgspec.ValidationError as error:
            raise Invalid(f"{id!r} is none of {kind}: {error}", document=id) from None

    def list_category(self, category: str) -> list[str]:
        """The names in a category, each once, in order, of JSON and of Markdown; of `sessions` also those of sessions.

        Raises:
            Corrupt: one of them is damaged; the error names it.
        """
        validate_category(category)
        names: set[str] = set()
        cursor: str | None = None
        while True:
            page = self._store.documents.list(self._documents + category, limit=PAGE, cursor=cursor)
            if page.damaged:
                raise Corrupt(f"document {page.damaged[0]!r} is damaged; run check", document=page.damaged[0])
            names.update(info.name for info in page)
            cursor = page.cursor
            if cursor is None:
                break
        if category == SESSIONS:
            names.update(self._key(info) for info in self._infos())
        return sorted(names)

    def delete_file(self, category: str, name: str) -> bool:
        """Delete what has a name in a category, as JSON and as Markdown; whether there was any."""
        ids = [self.document_id(category, name, ending) for ending in ("json", "md")]
        found = [self._store.documents.delete(id) for id in ids]
        if category == SESSIONS:
            found.append(self.delete_session(name))
        return any(found)

    # Sessions

    def save_session(self, session: Session) -> None:
        """Store what is new of a session, in one commit; `Saving.save` tells what it raises.

        One that was deleted since it was loaded stays deleted.
        """
        self._saving(session).save()

    def _saving(self, session: Session) -> Saving:
        validate_name(session.id)
        key = str(session.id)
        metadata = {"oxios_id": key} if fitted(key) != key else {}
        return Saving(self._store, session, self.session_id(key), metadata, self._user)

    def save_session_with_prune(
        self,
        session: Session,
        prune_config: PruneConfig,
        *,
        throttle: PruneThrottle | None = None,
        cooldown: float = 0,
    ) -> Pruned:
        """Store a session, then prune: never the one that was just stored, and done when this returns.

        Args:
            session, prune_config: What to store, and what the prune leaves.
            throttle: Only if it says so; a prune that fails is given back to it.
            cooldown: See `prune`.
        """
        self.save_session(session)
        if throttle is not None and not throttle.should_prune():
            return Pruned()
        try:
            done = self._pruned(prune_config, cooldown, {self.session_id(session.id)})
        except BaseException:
            if throttle is not None:
                throttle.release()
            raise
        if throttle is not None and (done.failed or done.stopped):
            throttle.release()
        return done

    def load_session(self, session_id: str) -> Session | None:
        """A session with all that was said in it; None if it is not there."""
        kept = self.session(session_id)
        try:
            return None if kept is None else session_in(document_of(kept, damaged="raise").fields, session_id)
        except NotFound:
            return None  # deleted meanwhile

    def list_sessions(self, *, limit: int | None = None) -> list[SessionSummary]:
        """What is known of each session, those that were updated last first; of all or of so many. No log is read.

        Raises:
            Corrupt: one of them is damaged; the error names it.
        """
        found = sorted(islice(self._infos(), limit), key=lambda info: (-info.updated_at, self._key(info)))
        return [self._summary(info) for info in found]

    def _infos(self) -> Iterator[SessionInfo]:
        return kept_sessions(self._store, PROGRAM, self._start)

    def _key(self, info: SessionInfo) -> str:
        return key_of(info.id, info.metadata)

    def _summary(self, info: SessionInfo) -> SessionSummary:
        facts = facts_in(info)
        projects = projects_in(facts)
        updated = facts["updated_at"] if rustjson.micros_of(facts["updated_at"]) == info.updated_at else None
        return SessionSummary(
            id=self._key(info),
            user_id=facts["user_id"],
            message_count=info.counts.messages,
            title=title_in(mapping(facts.get("metadata"))) or info.title,
            active_seed_id=facts.get("active_seed_id"),
            project_id=projects[0] if projects else None,
            project_ids=projects,
            created_at=Timestamp.of(facts["created_at"]),
            updated_at=Timestamp.of(updated or time_text(info.updated_at)),
        )

    def delete_session(self, session_id: str) -> bool:
        """Delete a session for good; whether there was one. `store.trash.put` deletes so that it can be undone.

        Raises:
            Conflict: a fork reads its messages.
        """
        kept = self.session(session_id)
        try:
            if kept is not None:
                kept.delete()
        except NotFound:
            return False
        return kept is not None

    def get_or_create_session(self, user_id: str, session_id: str | None = None) -> Session:
        """The user's session with this id, created if it is not there; however many ask at once, they get one.

        Raises:
            Denied: it belongs to another user.
        """
        while True:
            found = None if session_id is None else self.load_session(session_id)
            if found is not None:
                if found.user_id != user_id:
                    raise Denied(f"session {session_id!r} belongs to another user", session=session_id)
                return found
            session = Session.new(user_id) if session_id is None else Session.with_id(user_id, session_id)
            try:
                self._saving(session).save(must="create")
            except Exists:
                continue  # another one was first
            return session

    def update_session(self, session: Session) -> None:
        """Store what is new of a session that is there.

        Raises:
            NotFound, Deleted: it is not.
        """
        self._saving(session).save(must="exist")

    # Retention

    def prune_plan(self, config: PruneConfig, *, cooldown: float = 0) -> PrunePlan:
        """What a prune would move to the trash, and what it spares and why; nothing is changed until it is applied.

        What runs, is starred, has a name in the store or is read by a fork is spared, and takes nobody's place.
        """
        return self._planned(config, cooldown, frozenset())

    def _planned(self, config: PruneConfig, cooldown: float, saved: set[str] | frozenset[str]) -> PrunePlan:
        every = self._store.prune(Policy(agent=PROGRAM, max_sessions=0))
        mine = [one for one in every.chosen if one.session.startswith(self._start)]
        oldest, most = every.at - config.ttl_hours * 3_600_000_000, config.max_sessions
        chosen: list[Chosen] = []
        fresh = [one for one in mine if not config.ttl_hours or one.updated_at >= oldest or one.session in saved]
        excess = max(len(fresh) - most, 0) if most else 0
        beyond = {one.session for one in fresh[:excess]} - saved  # the longest inactive first
        kept = {one.session for one in fresh} - beyond
        for one in mine:
            if one.session not in kept:
                old = one.session not in beyond
                why = f"it is older than {config.ttl_hours:,} hours" if old else f"{most:,} sessions are kept"
                chosen.append(msgspec.structs.replace(one, why=why))
        spared = [one for one in every.spared if one.session.startswith(self._start)]
        counted = (every.sessions, len(mine) + len(spared))
        policy = Policy(
            agent=PROGRAM,
            max_age=config.ttl_hours * 3600 if config.ttl_hours else None,
            max_sessions=most or None,
            cooldown=cooldown,
        )
        return PrunePlan(self._store, policy, every.at, counted, chosen, spared, every.damaged)

    def _pruned(self, config: PruneConfig, cooldown: float, saved: set[str]) -> Pruned:
        return self._planned(config, cooldown, saved).apply()

    def prune(self, config: PruneConfig, *, cooldown: float = 0) -> Pruned:
        """Move sessions to the trash until the config holds; `store.trash.undo(….prune)` brings them back.

        Args:
            config: What it leaves.
            cooldown: Seconds after a prune that succeeded, in any process, in which this one does nothing.
        """
        return self._pruned(config, cooldown, set())

    def prune_sessions(self, config: PruneConfig) -> int:
        """Move sessions to the trash until the config holds; how many were moved."""
        return len(self.prune(config).moved)

    def prune_agents_by_config(self, max_entries: int, ttl_hours: int, batch_size: int) -> int:
        """Move records of agents to `trash/agents`, the oldest first; how many were moved. Agents that run stay.

        Args:
            max_entries: How many are kept; 0 is no limit.
            ttl_hours: Those created before are moved; 0 is no limit.
            batch_size: How many are moved at the most.
        """
        for name, value in (("max_entries", max_entries), ("ttl_hours", ttl_hours), ("batch_size", batch_size)):
            check_count(name, value)
        plan = self._store.documents.prune_agents(
            max_age=ttl_hours * 3600 if ttl_hours else None,
            max_count=max_entries or None,
            batch=batch_size,
            category=f"{self._documents}{AGENTS}",
        )
        return len(plan.apply().moved)


def _plain(data: Any) -> Any:
    """A value as JSON would say it.

    Raises:
        Invalid: it can't be said.
    """
    if isinstance(data, Session):
        return document_in(data)
    try:
        return msgspec.to_builtins(data, str_keys=True)
    except (TypeError, ValueError) as error:
        raise Invalid(f"it is no JSON value: {error}") from None
