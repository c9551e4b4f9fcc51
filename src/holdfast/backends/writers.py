"""Who has a folder store open, and whether its index can be believed: the file `writers`.

    {"stamp":"9f…","clean":false,"boot":"c1…",
     "open":[{"note":"51…","owner":"process 4711 on kelp","durability":"disk"}]}

Everyone who has the store open holds a shared lock of the file, so the exclusive one says: nobody else is here. A
process puts its note in before it writes for the first time, synced, and takes it out when it closes; the last one to
close says `clean`, if no note of a killed process is left. The stamp is another one each time and stands in the index
too, so an index that was put back from a copy is not taken for this one. All changes are made under `open-lock`.
"""

from __future__ import annotations

import os
from enum import Enum

import msgspec

from holdfast.backends.disk import FILE_MODE, read_at, share_lock, sync_dir, try_lock, whoami, write_at
from holdfast.clock import boot


class Trust(Enum):
    """What can be said of a log behind which the index may not be believed."""

    ROWS = "what the rows cover was on the disk before them"
    LOGS = "rows may speak of lines that a loss of power took"
    LOOKS = "nothing is known: the index was lost"


class Note(msgspec.Struct, frozen=True):
    """One that writes."""

    note: str
    owner: str
    durability: str


class State(msgspec.Struct, frozen=True):
    """What the file says."""

    stamp: str = ""
    clean: bool = False
    open: tuple[Note, ...] = ()
    boot: str = ""

    def outlived(self) -> bool:
        """Whether the machine runs since this was said, so that the index has all that was written to it."""
        return self.boot != "" and self.boot == boot()

    def trust(self) -> Trust:
        """What may be believed when nobody has the store open: those who are noted were killed."""
        return Trust.LOGS if any(note.durability != "disk" for note in self.open) else Trust.ROWS


class Writers:
    """The file as one process holds it."""

    def __init__(self, root: str, durability: str) -> None:
        self._path = os.path.join(root, "writers")
        self._root = root
        self._durability = durability
        self._start()

    def _start(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), FILE_MODE)
        self._note = os.urandom(8).hex()
        self.noted = False

    def alone(self) -> bool:
        """Take the file for this process alone, if nobody else has the store open."""
        return try_lock(self._fd)

    def share(self) -> None:
        """Have the store open beside others."""
        share_lock(self._fd)

    def read(self) -> State:
        """What the file says. What can't be read, vouches for nothing."""
        try:
            return msgspec.json.decode(read_at(self._fd, 1 << 20, 0).partition(b"\n")[0], type=State)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return State()

    def write(self, state: State) -> None:
        """Say it, durably.

        A loss of power in between leaves what can't be read. A kill leaves what was said before or after, as one write
        replaces the line: others may have the store open, who still vouch for the index.
        """
        data = msgspec.json.encode(msgspec.structs.replace(state, boot=boot())) + b"\n"
        write_at(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))
        os.fsync(self._fd)
        sync_dir(self._root)

    def note(self) -> None:
        """This process is about to write."""
        state = self.read()
        mine = Note(self._note, whoami(), self._durability)
        self.write(State(state.stamp, False, (*state.open, mine)))
        self.noted = True

    def without_mine(self, state: State) -> State:
        """The state once this process has closed."""
        notes = tuple(note for note in state.open if note.note != self._note)
        return State(state.stamp, state.clean, notes, state.boot)

    def forked(self) -> None:
        """In a child: the lock that came along is the parent's to change; take one of its own."""
        self.close()
        self._fd = -1
        self._start()
        self.share()

    def close(self) -> None:
        """Give the lock back."""
        os.close(self._fd)
