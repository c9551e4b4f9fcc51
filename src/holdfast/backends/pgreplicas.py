"""Replicas of a server that reads may go to, and what each is known to have.

The server is asked for its position in its log, and a replica for how far it has replayed. If it has come to there, it
has all that was acknowledged before the server was asked: that is known by this process's own clock alone, and holds
where nothing is written, too, so that time goes by and no commit comes. A replica that is on its way says of when the
last commit is that it has; taken from what the server's clock said, that bounds what it lacks as well. Nobody is asked
while what is known is enough, and there is no thread.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from holdfast import forks
from holdfast.backend import Backend
from holdfast.backends.pgserver import Server
from holdfast.errors import HoldfastError, Invalid
from holdfast.reading import Replica
from holdfast.urls import Location, parse_url

PAUSE = 0.05
"""Seconds between two looks at the least."""
AWAY = 5.0
"""Seconds for which a replica that could not be asked is left alone."""
CONNECT = 2.0
"""Seconds to wait for a connection to a replica: the server is there, too."""
SAMPLES = 256
"""Positions of the server that are remembered."""
MAX_STALE = "5"
"""Seconds that a replica may be behind, if the URL does not say."""
_NEVER = float("-inf")

_POSITION = "pg_wal_lsn_diff({lsn}, '0/0')::bigint"
_SERVER = (
    "SELECT (SELECT system_identifier FROM pg_control_system()), "
    "CASE WHEN NOT pg_is_in_recovery() THEN left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) END, "
    f"CASE WHEN NOT pg_is_in_recovery() THEN {_POSITION.format(lsn='pg_current_wal_insert_lsn()')} END, "
    "extract(epoch FROM clock_timestamp())::float8"
)
# What the receiver says of the timeline is not told to every user, and what the control file says comes later.
_REPLICA = (
    "SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system()), "
    "greatest((SELECT received_tli FROM pg_stat_wal_receiver), (SELECT timeline_id FROM pg_control_checkpoint())), "
    f"{_POSITION.format(lsn='pg_last_wal_replay_lsn()')}, "
    "extract(epoch FROM pg_last_xact_replay_timestamp())::float8"
)


class Position(NamedTuple):
    """Where the server was at a time of this process's own clock, and what its clock said then."""

    at: float
    system: int
    timeline: int
    lsn: int
    clock: float


class Known:
    """What is known of one replica: it has all that was acknowledged before `reached`, and before `dated`."""

    def __init__(self, address: str, where: Location) -> None:
        self.address = address
        self.where = where
        self.server = Server(where, CONNECT)
        self.backend: Backend | None = None
        self.away_until = _NEVER
        self.lacks: int | None = None
        self.replayed = 0
        self.forget("it was not looked at yet")

    def forget(self, why: str) -> None:
        """Nothing is known of it any more."""
        self.reached = self.dated = _NEVER
        self.lacks = None
        self.why = why

    def learn(self, told: tuple[bool, int, int, int | None, float | None], positions: deque[Position]) -> None:
        """Compare what it says with where the server was."""
        recovering, system, timeline, replayed, stamp = told
        newest = positions[-1]
        if not recovering or replayed is None:
            self.forget("it is no replica: it takes writes")
        elif system != newest.system:
            self.forget("it is another server's replica")
        elif timeline != newest.timeline:
            self.forget(f"it follows another history of the server: timeline {timeline}, not {newest.timeline}")
        else:
            # One that was set up anew under the same address may have gone back.
            found = [p.at for p in positions if p.timeline == timeline and p.lsn <= replayed]
            self.reached = max(*found, _NEVER, self.reached if replayed >= self.replayed else _NEVER)
            # A commit that it has and the server is yet to make: the server's clock was put back, and tells nothing.
            self.dated = _NEVER if stamp is None or stamp > newest.clock else newest.at - (newest.clock - stamp)
            self.replayed = replayed
            self.lacks = max(0, newest.lsn - replayed)
            self.why = ""

    def has(self) -> float:
        """Until when, by this process's clock, it has all that was acknowledged."""
        return max(self.reached, self.dated)


class Chosen:
    """A replica that a reader reads from. See `reading.Source`."""

    def __init__(self, replicas: Replicas, known: Known, backend: Backend) -> None:
        self._replicas = replicas
        self._known = known
        self.backend = backend

    def fresh(self) -> bool:
        """Whether it still is within the bound; it is looked at if what is known does not tell."""
        return self._replicas.fresh(self._known)

    def behind(self) -> float:
        """How many seconds it is behind, looked at now."""
        self._replicas.look()
        return time.monotonic() - self._known.has()

    def lost(self, why: str) -> None:
        """It could not be read."""
        self._known.forget(why)
        self._known.away_until = time.monotonic() + AWAY


class Replicas:
    """The replicas that a store's URL names."""

    def __init__(self, where: Location, server: Server, opened: Callable[[Location], Backend]) -> None:
        """Nobody is asked yet. `opened` opens the store at a replica."""
        self._server = server
        self._opened = opened
        self._bound = _bound(where)
        self._all = [Known(address, there) for address, there in _places(where)]
        self._positions: deque[Position] = deque(maxlen=SAMPLES)
        self._blind = ""
        self._looked = self._wrote = _NEVER
        self._turn = 0
        self._looking = threading.Lock()
        forks.watch(self)

    def before_fork(self) -> None:
        """See `forks`."""

    def after_fork(self, *, child: bool) -> None:
        """See `forks`."""
        if child:
            self._looking = threading.Lock()

    def wrote(self) -> None:
        """This process was told of a commit, or may have made one, just now."""
        self._wrote = time.monotonic()

    def choose(self, *, own: bool) -> Chosen | None:
        """A replica within the bound; with `own`, one that has all that this process wrote. They take turns."""
        floor = self._wrote if own else _NEVER
        good = self._good(floor)
        if not good:
            self.look()
            good = self._good(floor)
        if not good:
            return None
        self._turn += 1
        known = good[self._turn % len(good)]
        return Chosen(self, known, known.backend) if known.backend is not None else None

    def fresh(self, known: Known) -> bool:
        """Whether a replica is within the bound."""
        if not self._within(known):
            self.look()
        return self._within(known)

    def _good(self, floor: float) -> list[Known]:
        return [known for known in self._all if self._within(known) and known.reached >= floor]

    def _within(self, known: Known) -> bool:
        return not known.why and time.monotonic() - known.has() <= self._bound

    def look(self) -> None:
        """Ask the server and its replicas where they are, unless that was done a moment ago."""
        with self._looking:
            if time.monotonic() - self._looked < PAUSE:
                return
            self._ask_server()
            for known in self._all:
                if time.monotonic() >= known.away_until:
                    self._ask(known)
            self._looked = time.monotonic()

    def _ask_server(self) -> None:
        at = time.monotonic()
        try:
            system, timeline, lsn, clock = self._server.read(_SERVER)[0]
        except HoldfastError as error:
            self._blind = error.message  # where it was before still bounds what a replica lacks
            return
        self._blind = "" if lsn is not None else f"{self._server.shown} is a replica itself"
        if lsn is not None:
            self._positions.append(Position(at, system, int(timeline, 16), _end(lsn), clock))

    def _ask(self, known: Known) -> None:
        try:
            told = known.server.read(_REPLICA)[0]
            if known.backend is None:
                known.backend = self._opened(known.where)
        except HoldfastError as error:
            known.forget(error.message)
            known.away_until = time.monotonic() + AWAY
            return
        if self._positions:
            known.learn((told[0], told[1], told[2], told[3], told[4]), self._positions)
        else:
            known.forget(self._blind)

    def told(self) -> list[Replica]:
        """What is known of each, looked at now."""
        self.look()
        now = time.monotonic()
        told: list[Replica] = []
        for known in self._all:
            behind = None if known.has() == _NEVER else max(0.0, now - known.has())
            why = known.why
            if not why and not self._within(known):
                since = "an unknown time" if behind is None else f"up to {behind:.3f} s"
                why = f"it is behind by {since}, more than max_stale={self._bound:g}"
                why += f" ({self._blind})" if self._blind else ""
            told.append(Replica(address=known.address, behind=behind, bytes=known.lacks, why=why))
        return told

    def close(self) -> None:
        """Close the connections."""
        for known in self._all:
            known.server.close()
            if known.backend is not None:
                known.backend.close()


def _end(lsn: int) -> int:
    """A position behind the last record; the server may give the one behind the header of a page that is empty yet."""
    return lsn - lsn % 8192 if lsn % 8192 in (24, 40) else lsn


def _bound(where: Location) -> float:
    text = where.params.get("max_stale", MAX_STALE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 86_400:
        raise Invalid(f"max_stale={text!r} is no number of seconds from 0 to 86,400", parameter="max_stale")
    return seconds


def _places(where: Location) -> list[tuple[str, Location]]:
    """The replicas' addresses, and the store there; user, password and the rest are those of the URL."""
    text = where.params["read_from"]
    if not text or set(text) & set("@/?#"):
        raise Invalid(
            "read_from= takes host:port,host:port; user, password and database are those of the URL",
            parameter="read_from",
        )
    params = {
        name: value
        for name, value in where.params.items()
        if name not in ("read_from", "max_stale", "durability", "blobs", "timeout")
    }
    params |= {"listen": "off", "timeout": str(CONNECT)}
    found: list[tuple[str, Location]] = []
    for host, port in parse_url(f"postgresql://{text}/").hosts:
        address = f"[{host}]:{port or 5432}" if ":" in host else f"{host}:{port or 5432}"
        url = f"postgresql://{address}/{where.path}"
        found.append((address, replace(where, params=params, url=url, hosts=((host, port or 5432),))))
    return found
