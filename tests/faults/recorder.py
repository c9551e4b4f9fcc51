"""What a store asks of the disk, call by call: `python -m faults.recorder PLACE OUT URL SEED STOP MODE [FAULT]`.

Runs a writer (faults.writer) in this process with two eyes on it: the functions of `os` that change files are wrapped,
and SQLite (apsw's, whatever the store says) works on a VFS that passes all on to its own and notes writes, syncs and
removals; the sync of a folder is seen where SQLite opens it. Nothing of this needs root, ptrace or a mount. What the
recording missed can't go unnoticed: replayed in full it must give the very files that are there (test_power_loss).

With FAULT `fail=7` the seventh sync fails once with EIO; with `kill=7` the process is killed behind the seventh call.
Each acknowledged step is printed, too, as faults.writer does.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from faults import command, environment
from faults.work import Ack
from faults.writer import run, tell
from holdfast.backends.engine import Engine


class Op(NamedTuple):
    """One call. `node` is the file or folder that it changes; an entry (name) is changed in its folder.

    create: `name` in folder `node` now means `other` (`size` 1 for a folder); unlink: it is gone; rename: `name` of
    `node` becomes `to` of `folder`; write: `data` at `size`; truncate: to `size`; sync, failed: all of `node` so far;
    ack: `data` was acknowledged.
    """

    kind: str
    node: int = 0
    name: str = ""
    other: int = 0
    size: int = 0
    data: Any = None
    folder: int = 0
    to: str = ""


class Recorder:
    """The calls below one folder, in order; node 0 is the folder itself."""

    def __init__(self, place: str, fail: int = 0, kill: int = 0) -> None:
        self.place = place
        self.ops: list[Op] = []
        self.lock = threading.RLock()
        self._nodes = {place: 0}
        self._fds: dict[int, int] = {}
        self._syncs = 0
        self._fail = fail
        self._kill = kill

    def _add(self, op: Op) -> None:
        self.ops.append(op)
        if len(self.ops) == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)

    def inside(self, path: Any) -> bool:
        return isinstance(path, str) and path.startswith(self.place + "/") and not path.endswith("-shm")

    def node(self, path: str) -> int:
        return self._nodes[path]

    def appeared(self, path: str, *, folder: bool = False, node: int = 0) -> None:
        above, name = os.path.split(path)
        self._nodes[path] = node or len(self.ops) + 1
        self._add(Op("create", self._nodes[above], name, self._nodes[path], int(folder)))

    def vanished(self, path: str) -> None:
        above, name = os.path.split(path)
        del self._nodes[path]
        self._add(Op("unlink", self._nodes[above], name))

    def moved(self, old: str, new: str) -> None:
        (above, name), (folder, to) = os.path.split(old), os.path.split(new)
        node = self._nodes[new] = self._nodes.pop(old)
        self._add(Op("rename", self._nodes[above], name, node, 0, None, self._nodes[folder], to))

    def written(self, node: int, offset: int, data: bytes) -> None:
        self._add(Op("write", node, size=offset, data=bytes(data)))

    def truncated(self, node: int, size: int) -> None:
        self._add(Op("truncate", node, size=size))

    def synced(self, node: int) -> bool:
        """Note a sync; False if it is the one that is to fail."""
        self._syncs += 1
        failed = self._syncs == self._fail
        self._add(Op("failed" if failed else "sync", node))
        return not failed

    def acked(self, ack: Ack) -> None:
        tell(ack)
        with self.lock:
            self._add(Op("ack", data=tuple(ack)))

    def watch_os(self) -> None:
        """Wrap what changes files in `os`."""
        for name, note in (
            ("open", self._open), ("close", self._close), ("write", self._write), ("pwrite", self._pwrite),
            ("ftruncate", self._ftruncate), ("fsync", self._sync), ("fdatasync", self._sync), ("mkdir", self._mkdir),
            ("link", self._link), ("rename", self._rename), ("replace", self._rename), ("unlink", self._unlink),
            ("remove", self._unlink), ("rmdir", self._unlink),
        ):  # fmt: skip
            setattr(os, name, self._wrapped(getattr(os, name), note))

    def _wrapped(self, real: Callable[..., Any], note: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self.lock:
                return note(real, *arguments, **options)

        return call

    def _open(self, real: Callable[..., int], path: Any, flags: int, *rest: Any, **options: Any) -> int:
        new = self.inside(path) and not os.path.lexists(path)
        fd = real(path, flags, *rest, **options)
        if new:
            self.appeared(path)
        if path == self.place or self.inside(path):
            self._fds[fd] = self.node(path)
            if flags & os.O_TRUNC and not new:
                self.truncated(self.node(path), 0)
        return fd

    def _close(self, real: Callable[..., None], fd: int) -> None:
        self._fds.pop(fd, None)
        real(fd)

    def _write(self, real: Callable[..., int], fd: int, data: bytes) -> int:
        count = real(fd, data)
        if fd in self._fds:
            self.written(self._fds[fd], os.lseek(fd, 0, os.SEEK_CUR) - count, bytes(data)[:count])
        return count

    def _pwrite(self, real: Callable[..., int], fd: int, data: bytes, offset: int) -> int:
        count = real(fd, data, offset)
        if fd in self._fds:
            self.written(self._fds[fd], offset, bytes(data)[:count])
        return count

    def _ftruncate(self, real: Callable[..., None], fd: int, size: int) -> None:
        real(fd, size)
        if fd in self._fds:
            self.truncated(self._fds[fd], size)

    def _sync(self, real: Callable[..., None], fd: int) -> None:
        if fd in self._fds and not self.synced(self._fds[fd]):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    def _mkdir(self, real: Callable[..., None], path: Any, *rest: Any, **options: Any) -> None:
        real(path, *rest, **options)
        if self.inside(path):
            self.appeared(path, folder=True)

    def _link(self, real: Callable[..., None], old: Any, new: Any) -> None:
        real(old, new)
        if self.inside(new):
            self.appeared(new, node=self.node(old))

    def _rename(self, real: Callable[..., None], old: Any, new: Any) -> None:
        real(old, new)
        if self.inside(old):
            self.moved(old, new)

    def _unlink(self, real: Callable[..., None], path: Any) -> None:
        real(path)
        if self.inside(path):
            self.vanished(path)

    def watch_sqlite(self) -> None:
        """Make a VFS that notes everything the default one of apsw."""
        vfs = WatchedVFS(self)
        # SQLite opens a folder for nothing but to sync it.
        opening = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int))
        real = opening(vfs.xGetSystemCall("openDirectory") or 0)

        def open_folder(path: bytes, fd: Any) -> int:
            with self.lock:
                self.synced(self.node(os.path.dirname(path.decode())))
            return int(real(path, fd))

        self._kept = (vfs, opening(open_folder))
        vfs.xSetSystemCall("openDirectory", ctypes.cast(self._kept[1], ctypes.c_void_p).value or 0)


class WatchedVFS(apsw.VFS):
    """SQLite's own VFS, seen by a recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__("watched", "unix", True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  # apsw's name
        return WatchedFile(self._recorder, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802  # apsw's name
        with self._recorder.lock:
            there = os.path.lexists(filename)
            super().xDelete(filename, syncdir)
            if there and self._recorder.inside(filename):
                self._recorder.vanished(filename)


class WatchedFile(apsw.VFSFile):
    """A file of SQLite's, seen by a recorder."""

    def __init__(self, recorder: Recorder, name: Any, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._recorder = recorder
        self._node: int | None = None
        with recorder.lock:
            new = recorder.inside(path) and not os.path.lexists(path)
            super().__init__("unix", name, flags)
            if new:
                recorder.appeared(path)
            if recorder.inside(path):
                self._node = recorder.node(path)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  # apsw's name
        with self._recorder.lock:
            super().xWrite(data, offset)
            if self._node is not None:
                self._recorder.written(self._node, offset, data)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  # apsw's name
        with self._recorder.lock:
            super().xTruncate(newsize)
            if self._node is not None:
                self._recorder.truncated(self._node, newsize)

    def xSync(self, flags: int) -> None:  # noqa: N802  # apsw's name
        with self._recorder.lock:
            if self._node is not None and not self._recorder.synced(self._node):
                raise apsw.IOError("the sync failed")
            super().xSync(flags)


def use_apsw() -> None:
    """Let every backend that is built on SQLite use the library whose calls can be watched."""
    real = Engine.__init__
    Engine.__init__ = lambda self, name: real(self, "apsw")  # type: ignore[method-assign]  # for this program


def recording(url: str, place: Path, steps: int, mode: str = "steps", fault: str = "") -> tuple[list[Op], bytes]:
    """Run the program on a new folder: the calls (none if it was killed), and what it printed."""
    place.mkdir()
    out = place.with_suffix(".ops")
    arguments = (place, out, url, 0, steps, mode, *([fault] if fault else []))
    done = subprocess.run(
        command("recorder", *arguments), env=environment(), stdout=subprocess.PIPE, timeout=300, check=False
    )
    if fault.startswith("kill"):
        assert done.returncode == -signal.SIGKILL, f"{fault} ended with {done.returncode}"
        return [], done.stdout
    assert done.returncode == 0, f"the writer ended with {done.returncode}"
    return [Op(*op) for op in pickle.loads(out.read_bytes())], done.stdout


def main(arguments: list[str]) -> None:
    """The program."""
    place, out, url, seed, stop, mode, *fault = arguments
    recorder = Recorder(place, **{name: int(number) for name, number in (text.split("=") for text in fault)})
    use_apsw()
    recorder.watch_sqlite()
    recorder.watch_os()
    middle = int(stop) // 2  # the store is closed and opened again half-way
    run(url, int(seed), range(middle), mode, recorder.acked)
    run(url, int(seed), range(middle, int(stop)), mode, recorder.acked)
    with open(out, "wb") as file:
        pickle.dump([tuple(op) for op in recorder.ops], file)


if __name__ == "__main__":
    main(sys.argv[1:])
