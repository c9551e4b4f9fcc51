"""An agent at work, to be killed inside its turns: `python -m faults.worker URL`.

It prints "open", and then `session seq` for each write that was acknowledged, for ever.
"""

from __future__ import annotations

import itertools
import os
import sys

from holdfast import Turn, assistant, open as open_store, tool_call, tool_result, user

SESSIONS = 3


def told(turn: Turn) -> None:
    """Say how far the turn's session was acknowledged."""
    os.write(1, f"{turn.id} {turn.last}\n".encode())


def work(turn: Turn, number: int) -> None:
    """One run: what a killed one left open is answered, two tools are called, and both are executed and answered."""
    turn.resume()
    begun = turn.append(user(f"go {number}")).last
    told(turn)
    turn.append(assistant(tool_call("a", "look", number), tool_call("b", "write", number)))
    told(turn)
    for call in ("a", "b"):
        with turn.step("tool", number, call_id=call) as step:
            step.output = "done"
        told(turn)
        turn.append(tool_result(call, "done"))
        told(turn)
    if number % 4 == 3:
        turn.rewind(to=begun)
        told(turn)


if __name__ == "__main__":
    with open_store(sys.argv[1]) as opened:
        os.write(1, b"open\n")
        for count in itertools.count():
            with opened.session(f"s{count % SESSIONS}").turn(owner="worker") as run:
                work(run, count)
