"""A process that holds a turn: `python -m faults.turner URL MODE TTL JUMP`.

Its wall clock is JUMP seconds ahead. It begins a turn of session `s`, appends, says `held`, and
- MODE `wait`: waits for a line, appends, says what came of it, and ends the turn, saying what came of that;
- MODE `stop`: stops itself (SIGSTOP) between two writes; continued, it goes on as `wait` does without waiting;
- MODE `fork`: forks a child that leaves the `with` block, then does as `wait`.
"""

from __future__ import annotations

import os
import signal
import sys

import holdfast
from holdfast import Store, Turn, user
from holdfast.turns.keeping import Turns
from holdfast.turns.places import Place


class Shifted(Place):
    """This very place, with a wall clock that is wrong."""

    def __init__(self, ahead: float) -> None:
        self._ahead = int(ahead * 1e6)

    def wall(self) -> int:
        return super().wall() + self._ahead


def say(what: str) -> None:
    print(what, flush=True)


def write(turn: Turn) -> None:
    """Append, and say what came of it."""
    try:
        turn.append(user("late"))
        say("stored")
    except holdfast.LeaseLost:
        say("LeaseLost")


def stand_still(store: Store) -> None:
    """Stop between two commits: amid one, every other process would wait for this one's locks."""
    with store.batcher._lock:
        os.kill(os.getpid(), signal.SIGSTOP)


def main(arguments: list[str]) -> None:
    """The program."""
    url, mode, ttl, jump = arguments
    with holdfast.open(url) as store:
        store.turns.close()
        store.turns = Turns(store.batcher, store.large, Shifted(float(jump)))
        try:
            with store.session("s").turn(ttl=float(ttl), owner=mode) as turn:
                turn.append(user("in time"))
                say("held")
                if mode == "stop":
                    stand_still(store)
                elif mode == "fork" and (child := os.fork()) == 0:
                    turn.append(user("of the child"))
                    turn.end(RuntimeError("a child ends no turn of its parent"))
                    os._exit(0)
                elif mode == "fork":
                    os.waitpid(child, 0)
                if mode != "stop":
                    sys.stdin.readline()
                write(turn)
            say("ended")
        except holdfast.LeaseLost:
            say("LeaseLost at the end")


if __name__ == "__main__":
    main(sys.argv[1:])
