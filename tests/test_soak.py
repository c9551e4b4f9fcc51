"""Writers on several hosts at random work on one store, killed and stopped amid it: nothing acknowledged is lost, twice
or out of order, no turn that was lost writes, and no error of a lock reaches anybody.

With `--long` it takes minutes. Where this machine can make them, some of the writers are on hosts of their own
(servers.hosts); the first lines of a test run tell.
"""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest

import holdfast
from faults import BACKENDS, command, environment, url_of
from faults.acts import DOCUMENTS, Act, Done, Outcome, read
from faults.soaked import wrong
from faults.soaker import EDITED, LOGS, SHARED, TTL, TURNED
from holdfast import user
from holdfast.heads.info import session_ref
from holdfast.plan import Commit, Range
from servers import hosts
from servers.hosts import Host
from servers.postgres import Postgres
from servers.redis import Cluster, Redis

WRITERS, HOSTS = 4, 2
SECONDS, LONG = 2.0, 150.0
PATIENCE = 120
"""Seconds within which what must happen has happened, or a writer has come to its end."""
KILLS = 1.5
"""Seconds between two kills."""


class Writer:
    """One writer: it is killed and started again; it is let go on when it stopped itself."""

    def __init__(self, who: str, url: str, place: Path, host: Host | None) -> None:
        self.who = who
        self.record = place / f"{who}.jsonl"
        self._stop = place / "stop"
        self._words = place / f"{who}.err"
        arguments = command("soaker", url, who, self.record, self._stop)
        self._command = host.inside(arguments) if host else arguments
        self._stands_since: float | None = None
        self.kills = 0
        self.start()

    def start(self) -> None:
        with self._words.open("ab") as words:
            self._process = subprocess.Popen(self._command, env=environment(), stderr=words)

    def look(self) -> bool:
        """Let it go on once its lease may be over; whether it has ended. An end with an error fails the test."""
        if (code := self._process.poll()) is not None:
            assert code == 0, self._words.read_text()
            return True
        stands = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        if not stands:
            self._stands_since = None
        elif self._stands_since is None:
            self._stands_since = time.monotonic()
        elif time.monotonic() - self._stands_since > 3 * TTL:
            self._process.send_signal(signal.SIGCONT)
            self._stands_since = None
        return False

    @property
    def stands(self) -> bool:
        """Whether it stopped itself, amid a turn that others may take over."""
        return self._stands_since is not None

    def kill(self) -> None:
        self.end_now()
        self.kills += 1
        self.start()

    def end_now(self) -> None:
        self._process.kill()
        self._process.wait()

    def done(self) -> list[Done]:
        return list(read(self.record, self.who))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.01)


def soak(writers: list[Writer], seconds: float, stop: Path) -> None:
    """Let them work, and kill one now and then, until the time is over and what must be seen was seen."""
    rnd = random.Random(len(writers))
    end, next_kill = time.monotonic() + seconds, time.monotonic() + KILLS

    def is_enough() -> bool:
        nonlocal next_kill
        assert not any(writer.look() for writer in writers), "one ended, and nobody told it to"
        if time.monotonic() > next_kill:
            rnd.choice([writer for writer in writers if not writer.stands]).kill()
            next_kill = time.monotonic() + KILLS * rnd.uniform(0.5, 1.5)
        return time.monotonic() > end and any(one.told("lost") for writer in writers for one in writer.done())

    deadline = end + PATIENCE
    while not is_enough():
        assert time.monotonic() < deadline, "no turn was lost"
        time.sleep(0.02)
    stop.touch()
    until(lambda: sum(writer.look() for writer in writers) == len(writers))


class Place:
    """Where the store of a test is: its URL for this machine, and for each host."""

    def __init__(self, backend: str, place: Path, joined: Sequence[Host]) -> None:
        self._end: Callable[[], None] = lambda: None
        here = "127.0.0.1"
        if backend == "postgres":
            server = Postgres()
            for host in joined:
                server.admit(host.ours)
            server.start().create_database()
            self.url, self._end = server.url(), server.stop
        elif backend == "redis":
            server = Redis(bind=" ".join([here, *(host.ours for host in joined)])).start()
            self.url, self._end = server.url(blobs="redis"), server.stop
        elif backend == "redis-cluster":
            nodes = Cluster().start()
            self.url, self._end = nodes.url(blobs="redis"), nodes.stop
        else:
            self.url = url_of(backend, place)
        self.urls = [self.url.replace(here, host.ours) for host in joined]

    def close(self) -> None:
        """End the server, if there is one."""
        self._end()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The stores to soak; a cluster, which takes long to begin and to lose a turn, in long runs."""
    if "backend" in metafunc.fixturenames:
        far = ["postgres", "redis", *(["redis-cluster"] if metafunc.config.getoption("--long") else [])]
        metafunc.parametrize("backend", [*BACKENDS, *(pytest.param(name, marks=pytest.mark.server) for name in far)])


def test_writers_on_several_hosts_lose_nothing(backend: str, tmp_path: Path, long: bool) -> None:
    with ExitStack() as held:
        # The nodes of a cluster name each other by one address, which is this machine's own.
        far = HOSTS if not hosts.missing() and backend != "redis-cluster" else 0
        joined = [held.enter_context(closing(Host())) for _ in range(far)]
        place = held.enter_context(closing(Place(backend, tmp_path, joined)))
        with holdfast.open(place.url) as store:
            for id in SHARED:
                store.session(id)
        where = [*zip(place.urls, joined, strict=True), *[(place.url, None)] * WRITERS][:WRITERS]
        writers = [Writer("abcdefgh"[n], url, tmp_path, host) for n, (url, host) in enumerate(where)]
        for writer in writers:
            held.callback(writer.end_now)
        soak(writers, LONG if long else SECONDS, tmp_path / "stop")
        done = [one for writer in writers for one in writer.done()]
        with holdfast.open(place.url) as store:
            found = wrong(store, done)
        assert not found, "\n".join(found[:20])
        print(f"{backend}, {len(joined)} hosts, {sum(w.kills for w in writers)} kills:", told(done))


def told(done: Sequence[Done]) -> dict[str, int]:
    """How often what was done came to what."""
    return dict(sorted(Counter(f"{one.act.op} {o.how}" for one in done for o in one.outcomes).items()))


def test_the_judge_of_soaks_finds_what_is_wrong() -> None:
    with holdfast.open("memory://") as store:
        for id in SHARED:
            store.session(id)
        store.session(LOGS[0]).append(user("wax1x0"), user("wax1x1"))
        with store.session(TURNED).turn() as turn:
            turn.append(user("wax2x0"))
        store.session(LOGS[0]).update(metadata={"a 3": 3})
        store.documents.put(DOCUMENTS[0], {"a": 1}, rev=0)
        store.session(LOGS[0]).append(user("wax5x0"))
        store.session(EDITED).append(user("wax6x0"))
        store.session(EDITED).remove_last()

        said = act(1, "append", LOGS[0], 2, Outcome(1, "done", 1, 2))
        ran = act(2, "turn", TURNED, 2, Outcome(2, "begun", what=turn.token), Outcome(2, "part", 2, 0))
        lost = Outcome(2, "lost", last=1)
        rest = [
            act(3, "update", LOGS[0], 0, Outcome(3, "done")),
            act(4, "count", "", 0, Outcome(4, "done")),
            act(5, "append", LOGS[0], 1),
            act(6, "append", EDITED, 1, Outcome(6, "done", 1, 1)),
        ]
        assert wrong(store, [said, ran, *rest]) == []
        assert wrong(store, [said, again(ran, *ran.outcomes, lost), *rest]) == []
        for done in (
            [ran, *rest],  # from nobody
            [again(said, Outcome(1, "done", 2, 3)), ran, *rest],  # elsewhere
            [again(said, Outcome(1, "refused")), ran, *rest],  # stored, and refused
            [again(said, *said.outcomes, Outcome(1, "error", what="locked")), ran, *rest],
            [act(7, "append", LOGS[0], 1, Outcome(7, "done", 4, 4)), said, ran, *rest],  # gone
            [said, again(ran, Outcome(2, "begun", what="x"), *ran.outcomes[1:]), *rest],  # of another turn
            [said, again(ran, ran.outcomes[0], Outcome(2, "lost", last=0)), *rest],  # stored by who had lost it
            [said, ran, *rest, act(13, "update", LOGS[0], 0, Outcome(13, "done"))],  # an old value
            [said, ran, *rest, act(8, "count", "", 0, Outcome(8, "done"))],  # overwritten
            [said, ran, *rest[:1], *rest[2:]],  # counted twice
            [said, ran, *rest, act(9, "fork", LOGS[0], 1, Outcome(9, "done"))],  # a fork that is gone
            [act(10, "append", LOGS[0], 0), moved(rest[2], 0), said, ran, *rest[:2], *rest[3:]],  # out of order
        ):
            assert wrong(store, done) != []
        store.backend.commit([Commit(ref=session_ref(EDITED), void=[Range(1, 1, False)])])
        assert wrong(store, [said, ran, *rest]) != []  # what was taken back is in view


def act(n: int, op: str, session: str, words: int, *outcomes: Outcome) -> Done:
    """An act of writer `a`."""
    return Done("a", Act(n, op, session, [f"wax{n}x{index}" for index in range(words)]), list(outcomes))


def again(done: Done, *outcomes: Outcome) -> Done:
    """The same with other outcomes."""
    return Done(done.who, done.act, list(outcomes))


def moved(done: Done, n: int) -> Done:
    """The same as act number `n`."""
    return Done(done.who, msgspec.structs.replace(done.act, n=n), done.outcomes)
