"""What may be on a disk after the power went, made from a recording (faults.recorder).

Strictly, POSIX promises this much: a file's bytes as of its last completed sync, and a name (created, renamed, removed)
once the folder that holds it was synced afterwards. What a failed sync should have written is promised by no later one.
A disk may hold more: `prefix` is all calls up to the moment, `mixed` is what is promised and any part of the rest, the
last writes torn. `strict` is what is promised and not a byte more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path

from faults.recorder import Op

MODELS = ("strict", "prefix", "mixed")


def promised(ops: Sequence[Op]) -> list[bool]:
    """For each call, whether a later one made it durable."""
    last: dict[int, int] = {}
    lost: set[int] = set()
    dirty: dict[int, list[int]] = {}
    for at, op in enumerate(ops):
        if op.kind == "write":
            dirty.setdefault(op.node, []).append(at)
        elif op.kind == "sync":
            last[op.node] = at
            dirty.pop(op.node, None)
        elif op.kind == "failed":
            lost.update(dirty.pop(op.node, ()))
    return [
        at < last.get(op.node, -1) and at not in lost and (op.kind != "rename" or at < last.get(op.folder, -1))
        for at, op in enumerate(ops)
    ]


class Image:
    """The files and folders that a part of the calls makes."""

    def __init__(self) -> None:
        self._files: dict[int, bytearray] = {}
        self._folders: dict[int, dict[str, int]] = {0: {}}

    def apply(self, op: Op, cut: int | None = None) -> None:
        """Make a call; of a write only the first `cut` bytes."""
        if op.kind == "create":
            self._folders.setdefault(op.node, {})[op.name] = op.other
            if op.size:
                self._folders.setdefault(op.other, {})
        elif op.kind == "unlink":
            self._folders.setdefault(op.node, {}).pop(op.name, None)
        elif op.kind == "rename":
            names = self._folders.setdefault(op.node, {})
            if names.get(op.name) == op.other:
                del names[op.name]
            self._folders.setdefault(op.folder, {})[op.to] = op.other
        elif op.kind == "write":
            file = self._files.setdefault(op.node, bytearray())
            data = op.data[:cut]
            file.extend(bytes(max(0, op.size - len(file))))
            file[op.size : op.size + len(data)] = data
        elif op.kind == "truncate":
            file = self._files.setdefault(op.node, bytearray())
            del file[op.size :]
            file.extend(bytes(op.size - len(file)))

    def files(self, folder: int = 0, path: str = "") -> dict[str, bytes]:
        """Every file by its path; a folder ends in `/` and has no bytes."""
        found: dict[str, bytes] = {}
        for name, node in self._folders[folder].items():
            if node in self._folders:
                found |= {f"{path}{name}/": b"", **self.files(node, f"{path}{name}/")}
            else:
                found[path + name] = bytes(self._files.get(node, b""))
        return found

    def write(self, place: Path) -> None:
        """Put it on the disk."""
        for path, data in self.files().items():
            if path.endswith("/"):
                (place / path).mkdir(mode=0o700)
            else:
                (place / path).touch(0o600)
                (place / path).write_bytes(data)


def image(ops: Sequence[Op], model: str, rnd: random.Random) -> Image:
    """A disk on which the power went after these calls."""
    made = Image()
    sure = [True] * len(ops) if model == "prefix" else promised(ops)
    for op, kept in zip(ops, sure, strict=True):
        if kept:
            made.apply(op)
        elif model == "mixed" and rnd.random() < 0.5:
            torn = op.kind == "write" and rnd.random() < 0.3
            made.apply(op, rnd.randint(0, len(op.data)) if torn else None)
    return made


def on_disk(place: Path) -> dict[str, bytes]:
    """The files that are there, as `Image.files` tells them; without SQLite's shared memory, which needs no disk."""
    found: dict[str, bytes] = {}
    for folder, _, names in os.walk(place):
        above = os.path.relpath(folder, place)
        if above != ".":
            found[above + "/"] = b""
        for name in names:
            if not name.endswith("-shm"):
                path = Path(folder, name)
                found[str(path.relative_to(place))] = path.read_bytes()
    return found
