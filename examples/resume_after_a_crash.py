"""An agent that is killed in the middle of its work and goes on where it stood, without doing anything twice.

Each piece of work is appended under a key of its own. The second run reads what is there and does only the rest; a
piece that the first run did but could not confirm is stored once, however often it is tried.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import holdfast
from holdfast import assistant, step, user

CITIES = ("Oslo", "Lima", "Hanoi", "Accra")


def work(url: str, *, die_after: int | None = None) -> None:
    """Look up each city that was not looked up yet."""
    with holdfast.open(url) as store:
        session = store.session("weather")
        session.append(user("How is the weather in " + ", ".join(CITIES) + "?"), key="question")
        done = {event.payload.call_id for event in session.events(types="step")}
        print(f"{len(done)} of {len(CITIES)} done before", flush=True)
        for number, city in enumerate(CITIES):
            if city in done:
                continue
            session.append(step("weather", {"city": city}, "mild", call_id=city), key=f"look-up-{city}")
            print(f"looked up {city}", flush=True)
            if number == die_after:
                os._exit(1)  # no goodbye: nothing is flushed, closed or cleaned up
        session.append(assistant("It is mild everywhere."), key="answer")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        work(sys.argv[1], die_after=1)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite://{folder}/agents.db"
        subprocess.run([sys.executable, __file__, url], check=False)
        work(url)
        with holdfast.open(url) as store:
            for event in store.session("weather").events():
                print(event.seq, event.type, event.id)
