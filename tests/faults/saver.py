"""One large save to be killed: `python -m faults.saver URL HOW EVENTS`.

- HOW `session`: `Session.save` with a key, into the session `s`, which is there;
- HOW `a3s`, `oxios`: the save of that program's adapter, of a session `s` that is new.

It prints "go" when all is in memory and the save begins, and "saved" when it was acknowledged.
"""

from __future__ import annotations

import os
import sys

from holdfast import Store, note, open as open_store
from holdfast.adapters.a3s_parts import Message
from holdfast.adapters.a3s_sync import SyncSessionStore
from holdfast.adapters.a3s_types import SessionData
from holdfast.adapters.oxios_sync import BlockingStateStore
from holdfast.adapters.oxios_types import Session, UserMessage


def save(store: Store, how: str, many: int) -> None:
    """Make the save."""
    if how == "session":
        events = [note(f"line {n}") for n in range(many)]
        os.write(1, b"go\n")
        store.session("s").save(*events, key="save", labels=["saved"])
    elif how == "a3s":
        data = SessionData(id="s", messages=[Message.user(f"line {n}") for n in range(many)])
        os.write(1, b"go\n")
        SyncSessionStore(store).save(data)
    else:
        session = Session.with_id("ada", "s")
        session.user_messages = [UserMessage(f"line {n}") for n in range(many)]
        os.write(1, b"go\n")
        BlockingStateStore(store).save_session(session)


if __name__ == "__main__":
    with open_store(sys.argv[1]) as opened:
        save(opened, sys.argv[2], int(sys.argv[3]))
        os.write(1, b"saved\n")
