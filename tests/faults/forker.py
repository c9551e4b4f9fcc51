"""A process that forks with an open store: `python -m faults.forker URL HOW`.

Parent and children append to one session at the same time and print each acknowledged text with one write. HOW is
`fork` (a child and a grandchild), `pool` (multiprocessing's workers), `busy` (forks again and again while a thread
appends, so that some child is born while a lock is held), `left` (the parent closes its store while the child reads,
another process writes, then the child) or `two` (there are two stores, and parent and child each close one and go on).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import warnings

import holdfast
from faults.locks import another_process
from holdfast import Store

EACH = 20


def append(store: Store, who: str, count: int = EACH) -> None:
    """Append and say so."""
    session = store.session("shared")
    for n in range(count):
        text = f"{who} {n}"
        session.append(holdfast.user(text))
        os.write(sys.stdout.fileno(), f"{text}\n".encode())
    assert len(list(session.events())) >= count
    assert store.search(f'"{who} {count - 1}"').items


def forked(store: Store, who: str, generations: int, count: int = EACH) -> int:
    """A child that appends, as may its own child; the process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        grandchild = forked(store, f"{who} child", generations - 1) if generations > 1 else 0
        append(store, who, count)
        status = os.waitpid(grandchild, 0)[1] if grandchild else 0
        store.close()
    finally:
        os._exit(status)


def in_pool(number: int) -> None:
    """What a worker of multiprocessing does with the store that it was born with."""
    append(_STORE[0], f"worker {number}")


_STORE: list[Store] = []


def main(arguments: list[str]) -> None:
    """The program."""
    url, how = arguments
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn of forking beside threads
    with holdfast.open(url) as store:
        _STORE.append(store)
        append(store, "before")
        if how == "fork":
            child = forked(store, "child", 2)
            append(store, "parent")
            assert os.waitpid(child, 0)[1] == 0
        elif how == "pool":
            with multiprocessing.get_context("fork").Pool(3) as pool:
                result = pool.map_async(in_pool, range(3))
                append(store, "parent")
                result.get()
        elif how == "busy":
            busy(store)
        elif how == "two":
            two(store)
        else:
            left(store)
        with holdfast.open(url) as again:
            append(again, "after")


def busy(store: Store) -> None:
    """Fork while a thread of ours appends."""
    done = threading.Event()

    def work() -> None:
        n = 0
        while not done.is_set():
            append(store, f"thread {n}", 1)
            n += 1

    thread = threading.Thread(target=work)
    thread.start()
    children = [forked(store, f"child {number}", 1, 3) for number in range(15)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    done.set()
    thread.join()


def left(store: Store) -> None:
    """Close the store while a child reads; the child writes only when another process has written."""
    is_reading, reads = os.pipe()
    may_write, go = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert len(list(store.session("shared").events())) == EACH
            os.write(reads, b".")
            os.read(may_write, 1)
            append(store, "left child")
            status = 0
        finally:
            os._exit(status)
    os.read(is_reading, 1)
    store.close()
    another_process(store.url)
    os.write(go, b".")
    assert os.waitpid(child, 0)[1] == 0


def two(store: Store) -> None:
    """Fork with two stores on the same files; each side closes one of them and goes on with the other."""
    second = holdfast.open(store.url)
    append(second, "second")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            append(second, "second of the child")
            store.close()
            append(second, "last of the child")
            second.close()
            status = 0
        finally:
            os._exit(status)
    append(store, "first of the parent")
    second.close()
    append(store, "last of the parent")
    assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1:])
