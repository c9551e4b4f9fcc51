"""The store: what a URL opens. It finds, creates, lists, searches and deletes sessions.

A store owns one backend, the batcher in front of it and its large values; sessions are cheap views on it. What only
some programs do (documents, retention, checks, totals) is imported when it is done, so that the others start quickly.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from holdfast.backend import Backend
from holdfast.batch import Batcher
from holdfast.errors import Denied
from holdfast.finding.hits import SearchHit
from holdfast.finding.listing import list_sessions
from holdfast.finding.pages import Page, check_limit, position_of
from holdfast.finding.references import given, got, resolved
from holdfast.heads import creation
from holdfast.heads.info import SessionInfo, filter_tags
from holdfast.log import Appendable, OnDamage
from holdfast.model import to_micros
from holdfast.plan import check_id
from holdfast.session import Session
from holdfast.turns.keeping import Turns
from holdfast.upkeep import Upkeep

if TYPE_CHECKING:
    from holdfast.documents.documents import Documents
    from holdfast.events.receipts import Receipt
    from holdfast.events.totals import UsageReport
    from holdfast.finding.watch import Change
    from holdfast.heads.settings import SessionConfig
    from holdfast.history.branching import Branch
    from holdfast.reading import Replica


class Store(Upkeep):
    """An open store; use it as a context manager, from any number of threads.

    Open one with `holdfast.open(url)`.
    """

    def __init__(
        self, url: str, secrets: Collection[str] = (), *, backend: Backend | None = None,
        user: str | None = None, create: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(url, secrets, backend=backend, user=user, create=create)
        self._whole: Store | None = None
        self._of_views: weakref.WeakSet[Turns | Batcher] = weakref.WeakSet()  # what may run on when a view is dropped
        self._views_lock = threading.Lock()

    @cached_property
    def documents(self) -> Documents:
        """The JSON and Markdown beside the sessions: put, get, list and delete them there."""
        from holdfast.documents.documents import Documents

        return Documents(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.url}>" if self.user is None else f"<Store {self.url} for {self.user}>"

    def for_user(self, user: str) -> Store:
        """This store as one user sees it: nothing in it but hers can be read, listed, searched, changed or watched.

        What is created in it is hers. An exact id of another user's session is `Denied`; nothing else tells of it. It
        shares this store's engine and lasts as long as that is open; closing it ends only the turns begun in it.

        Raises:
            Denied: this is another user's already.
            Invalid, TooLarge: no user can be called so.
        """
        check_id(user, "user")
        if self.user not in (None, user):
            raise Denied(f"this store is open for the user {self.user!r} alone")
        from holdfast.wrappers import ForUser

        # What follows from the view's commits it writes itself.
        backend = ForUser(self.backend, user, partial(self.batcher.commit, sums=False))
        view = Store(self.url, self.secrets, backend=backend, user=user)
        whole = view._whole = self._whole or self  # a view of a view ends with the whole store, too
        with whole._views_lock:
            whole._of_views.update((view.turns, view.batcher))
        return view

    def reader(self, *, own: bool = True) -> Store:
        """This store for reading alone: from a replica that the URL names (`read_from`), if one is fresh enough.

        A replica is, if it has all that was acknowledged `max_stale` seconds ago, and with `own` all that this store
        wrote before this call. Else all is read from the store itself, and so it goes on once the replica falls behind
        or can't be read. Make one for each piece of work. It lasts as long as this store is open; `behind` says how
        stale it may be. What would write is `ReadOnly`.
        """
        from holdfast.reading import reader

        whole = self._whole or self
        made = Store(self.url, self.secrets, backend=reader(whole.backend, own=own))
        return made if self.user is None else made.for_user(self.user)

    def behind(self) -> float:
        """Seconds: what is read here has all that was acknowledged so long ago. 0.0 unless it is read from a replica.

        A reader's replica is asked for it now; see `reader`.
        """
        from holdfast.reading import Reading

        backend = (self._whole or self).backend
        return backend.behind() if isinstance(backend, Reading) else 0.0

    def replicas(self) -> list[Replica]:
        """The replicas that the URL names (`read_from`), how far each is behind, and why one is not read from."""
        from holdfast.reading import Replicated

        backend = (self._whole or self).backend
        return backend.replicas() if isinstance(backend, Replicated) else []

    def close(self) -> None:
        """Finish what is under way, in views of it too, and give the engine back. A second call does nothing."""
        with self._views_lock:
            running = list(self._of_views) if self.user is None else []
        for one in running:
            one.close()
        self.turns.close()
        self.batcher.close()
        self.backend.close()

    def session(
        self,
        id: str | None = None,
        *,
        user: str | None = None,
        name: str | None = None,
        title: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        project: str | None = None,
        state: str = "idle",
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | SessionConfig | None = None,
        created_at: datetime | int | None = None,
    ) -> Session:
        """The session with this id, created if it is not there; however many callers ask at once, they get one.

        So it is with the name if no id is given, and with the user's if one is; without both, a new session is created.
        What else is given describes a new session; an old one keeps its own.

        Raises:
            Denied: it belongs to another user.
            Deleted: it was deleted; `create` starts it anew on purpose.
            Trashed: it is in the trash; `trash.restore` brings it back.
            Invalid, TooLarge: the id or a field can't be stored; or sessions of several users are called so.
            Exists: given an id, too: another session has the name.
        """
        return Session(
            self,
            creation.get_or_create(
                self, id, created_at, labels, metadata, config,
                user=user, name=name, title=title, agent=agent, parent=parent, project=project, state=state,
            ),
        )  # fmt: skip

    def create(
        self,
        id: str | None = None,
        *,
        user: str | None = None,
        name: str | None = None,
        title: str | None = None,
        agent: str | None = None,
        parent: str | None = None,
        project: str | None = None,
        state: str = "idle",
        labels: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | SessionConfig | None = None,
        created_at: datetime | int | None = None,
    ) -> Session:
        """A new session. One that was deleted starts anew; its numbers go on where the old one's ended.

        Raises:
            Exists: there is one with this id.
            Trashed: there is one in the trash.
            Invalid, TooLarge: the id or a field can't be stored.
        """
        return Session(
            self,
            creation.create(
                self, id, created_at, labels, metadata, config,
                user=user, name=name, title=title, agent=agent, parent=parent, project=project, state=state,
            ),
        )  # fmt: skip

    def get(self, id: str | None = None, *, name: str | None = None, damaged: OnDamage = "raise") -> Session | None:
        """The session with this id or name, or None; None also if it is in the trash, where `trash.get` finds it.

        Args:
            id: Its exact id; or
            name: What it is called.
            damaged: `keep` gives also a session whose head can't be trusted. Nothing is known of it but its log, whose
                events can be read (with `damaged="keep"` too); it can be deleted, and not be written to.

        Raises:
            Invalid: neither is given, or both; or sessions of several users are called so, and `matches` has their ids.
            Corrupt: it is there and its head can't be trusted.
        """
        head = got(self, id, name, keep=damaged == "keep")
        return None if head is None or head.dead or head.trashed else Session(self, head)

    def exists(self, id: str | None = None, *, name: str | None = None) -> bool:
        """Whether there is a session with this id or name; see `get`."""
        return self.get(id, name=name) is not None

    def commit_in(
        self, connection: object, id: str, *events: Appendable, key: str | None = None, expect: int | None = None
    ) -> Receipt:
        """Append as `Session.append` does, inside a transaction of yours on PostgreSQL: stored when you commit, or not.

        `connection` is a `psycopg.Connection` amid a transaction. From the call to your commit nobody else writes to
        the session `id`. The receipt's durability is `memory`: it is what your commit makes it.

        Raises:
            Invalid, TooLarge: another engine, no transaction, or a value of more than 64 KiB.
            NotFound, Deleted, Stale, KeyReused: as of an append; your transaction goes on.
            Unavailable: the transaction has failed, and must be begun anew.
        """
        from holdfast.events.inside import append_inside

        return append_inside(self, connection, id, events, key, expect)

    def sessions(
        self,
        *,
        user: str | None = None,
        state: str | None = None,
        label: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        project: str | None = None,
        parent: str | None = None,
        name: str | None = None,
        text: str | None = None,
        since: datetime | int | str | None = None,
        until: datetime | int | str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[SessionInfo]:
        """Sessions, those that were active last first. What is damaged is left out, and named by the page's `damaged`.

        Args:
            user, state, label, agent, model, project, parent, name: Only those that carry exactly this.
            text: Only those whose name or title holds it, whatever the case.
            since, until: Only those whose time, from creation to last activity, overlaps this one.
            limit: Items on the page, up to 10,000.
            cursor: Where the page before ended.
        """
        check_limit(limit)
        tags = filter_tags(
            user=user, state=state, label=label, agent=agent, model=model, project=project, parent=parent, name=name
        )
        start, end = (None if time is None else to_micros(time) for time in (since, until))
        return list_sessions(
            self.backend, tags, start=start, end=end, text=text, after=position_of(cursor), limit=limit
        )

    def search(
        self,
        query: str,
        *,
        session: str | None = None,
        name: str | None = None,
        user: str | None = None,
        state: str | None = None,
        label: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        project: str | None = None,
        newest: bool = False,
        limit: int = 20,
        cursor: str | None = None,
        width: int = 160,
    ) -> Page[SearchHit]:
        """Events whose text matches, the best first.

        The query is words (all must be there), "phrases", prefix*, -without, and OR between alternatives. An event
        that was acknowledged before the call is found. See docs/SEARCH.md.

        Args:
            session, name: Only events of this session; of a fork, also those that it reads through its parents.
            user, state, label, agent, model, project: Only sessions that carry exactly this.
            newest: The newest first instead of the best.
            limit, cursor: As in `sessions`.
            width: Characters of a snippet, about.
        """
        from holdfast.finding import finding

        check_limit(limit)
        session = given(self, session, name)
        tags = filter_tags(user=user, state=state, label=label, agent=agent, model=model, project=project)
        return finding.page(self, query, session, tags, newest=newest, limit=limit, cursor=cursor, width=width)

    def usage(
        self,
        by: str = "session",
        *,
        since: datetime | int | str | None = None,
        until: datetime | int | str | None = None,
        user: str | None = None,
        agent: str | None = None,
        model: str | None = None,
        project: str | None = None,
    ) -> UsageReport:
        """What model calls took, each response counted once; what was taken back was spent and counts.

        Heads tell most of it; docs/USAGE.md says which logs are read.

        Args:
            by: session, model, agent, user, project, or day (in UTC).
            since, until: Only calls from the one time on and before the other.
            user, agent, model, project: Only sessions that carry exactly this.

        Raises:
            Invalid: `by` is none of these.
        """
        from holdfast.events.totals import usage_totals

        tags = filter_tags(user=user, agent=agent, model=model, project=project)
        return usage_totals(self, by, since, until, tags)

    def delete(self, id: str | None = None, *, name: str | None = None) -> None:
        """Delete the session with this id or name for good: its events are gone, and no late writer brings it back.

        One whose head is damaged is deleted by its id. What is gone may still stand in the files until `compact`.

        Raises:
            NotFound, Deleted: there is none.
            Invalid: neither is given, or both; or sessions of several users are called so.
            Trashed: it is in the trash; `trash.purge` deletes it.
            Conflict: a fork reads its events; `fork` on the error names it.
        """
        from holdfast.history import branching

        branching.delete_one(self, id, name)

    def tree(self, id: str | None = None, *, name: str | None = None) -> Branch:
        """The tree of forks that the session with this id or name stands in, from the first of its ancestors down.

        Raises:
            NotFound, Deleted: there is none.
            Invalid: neither is given, or both; or sessions of several users are called so.
            Corrupt: an ancestor can't be read.
        """
        from holdfast.history import branching

        return branching.tree(self, id, name)

    def watch(
        self,
        *,
        after: str | None = None,
        since: datetime | int | str | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Change]:
        """Every session that changes, or is deleted, put into the trash or restored, as it happens, in any process.

        Each change of a session comes behind those before it; several may come as one. None is left out, whatever times
        it and its events carry. Whoever keeps the `position` of the last change that was done with goes on behind it
        with `after`, also in another process, or after an error: what was found together with it may be told again, and
        is known by its `rev`.

        Args:
            after: Go on behind the change with this position, or where `position` stood; from the call on if not given.
            since: Begin with those that were active, or deleted, after this time, instead.
            stop: Ends the iteration when set.

        Raises:
            Invalid: a position of another store, or none at all; or both `after` and `since` are given.
        """
        from holdfast.finding.watch import Watcher, watched

        watcher = Watcher(self.backend, since=None if since is None else to_micros(since), after=after)
        return watched(self.backend, watcher, stop)

    def position(self) -> str:
        """Where the store stands now: what is changed from here on, a `watch` after it tells."""
        from holdfast.finding.watch import Watcher

        return Watcher(self.backend).position

    def resolve(self, reference: str) -> Session:
        """The session that a person means: by full id, by name, by `@last`, or by the unique start of an id.

        Raises:
            NotFound: there is none.
            Invalid: several could be meant; the message names some.
            Corrupt: it is one whose head can't be trusted; `id` on the error names it.
        """
        return Session(self, resolved(self, reference))
