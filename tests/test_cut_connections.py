"""Connections to servers that are cut at every point of every kind of call: append, read, list, search, blob, listen.

Whatever a call comes to, it is an answer or one of the two kinds of failure, and the same call then does what is left.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import holdfast
from holdfast import Store, Unavailable, Uncertain, user
from servers import postgres, redis
from servers.proxy import Proxy, When

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("redis")]

REQUESTS = 2
"""At which of a call's requests it is cut, at the most."""
LONG = 12
BIG = "x" * 150_000


@pytest.fixture(params=["postgres", "redis"])
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    server = postgres.shared() if request.param == "postgres" else redis.shared()
    assert server is not None, "these tests cut connections of a private server"
    with Proxy(server.port) as made:
        yield made


@pytest.fixture
def straight(proxy: Proxy) -> str:
    """The URL of a store; `behind` is the same through the proxy."""
    server = postgres.shared()
    if server is not None and server.port == proxy.target:
        return server.url()
    return redis.shared().url(blobs="redis")


def behind(proxy: Proxy, url: str, **more: str) -> str:
    return url.replace(f":{proxy.target}/", f":{proxy.port}/") + "".join(f"&{k}={v}" for k, v in more.items())


def unheard(proxy: Proxy, url: str) -> str:
    """Without a listener, so that all requests are the test's."""
    return behind(proxy, url, timeout="5", **({"listen": "off"} if url.startswith("postgres") else {}))


def calls(store: Store, n: int) -> dict[str, Callable[[], Any]]:
    """Calls that give the same whenever they are repeated."""
    session = store.session("s")
    return {
        "append": lambda: session.append(user(f"apple {n}"), key=f"k{n}").last,
        "append large": lambda: session.append(user(f"{n} {BIG}"), key=f"l{n}").last,
        "artifact": lambda: session.artifacts.put(f"a{n}", b"y" * 100_000 + b"%d" % n).name,
        "load": lambda: [message.text for message in session.messages()],
        "last": lambda: [event.seq for event in session.events(last=3)],
        "get": lambda: session.artifacts.get("a-1"),
        "list": lambda: [info.id for info in store.sessions(user="ann")],
        "search": lambda: len(store.search("apple").items) >= 1,
        "update": lambda: session.update(metadata={"n": n}).metadata,
        "put": lambda: store.documents.put("notes/x.json", {"n": n}).id,
    }


@pytest.mark.parametrize("when", ["before", "amid", "after", "answered"])
def test_a_call_that_is_cut_fails_in_one_of_two_ways_and_is_done_by_the_next(
    proxy: Proxy, straight: str, when: When, long: bool
) -> None:
    with holdfast.open(straight) as other, holdfast.open(unheard(proxy, straight)) as store:
        store.session("s", user="ann")
        n = -1
        for each in calls(store, n).values():
            each()
        for requests in range(LONG if long else REQUESTS):
            n += 1
            for name, call in calls(store, n).items():
                proxy.cut(requests, when)
                with contextlib.suppress(Unavailable, Uncertain):
                    call()
                proxy.heal()
                with contextlib.suppress(Unavailable, Uncertain):
                    call()  # a cut behind the last answer is noticed by the next call
                assert call() == calls(other, n)[name](), (name, requests)
        assert proxy.cuts > n
        events = list(other.session("s").events())
        assert [event.seq for event in events] == list(range(1, 3 * (n + 2) + 1))
        assert other.check().ok


def test_who_watches_hears_on_after_a_cut(proxy: Proxy, straight: str) -> None:
    with holdfast.open(straight) as other, holdfast.open(behind(proxy, straight)) as store:
        session = other.session("s")
        heard: list[int] = []
        stop, told = threading.Event(), threading.Semaphore(0)

        def follow() -> None:
            for event in store.session("s").tail(after=0, stop=stop):
                heard.append(event.seq)
                told.release()

        thread = threading.Thread(target=follow)
        thread.start()
        try:
            for n in range(1, 6):
                session.append(user(f"apple {n}"))
                assert told.acquire(timeout=20), "nothing was told any more"
                proxy.sever()
        finally:
            stop.set()
            thread.join(20)
        assert heard == [1, 2, 3, 4, 5]
