"""holdfast as a contestant: stores filled and messages made, always through the public interface."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import holdfast
from benchmarks.corpus import Said
from holdfast import Message, Session, Store, message, tool_result


def url(path: Path, durability: str = "disk") -> str:
    """The URL of a store in one file."""
    return f"sqlite://{path.as_posix()}?durability={durability}"


def payload(said: Said) -> Message:
    """A message of ours."""
    return tool_result("c1", said.text) if said.role == "tool" else message(said.role, said.text)


def extend(session: Session, said: Sequence[Said]) -> None:
    """Append many, in one batch."""
    session.append(*map(payload, said))


def store(path: Path, durability: str = "disk") -> Store:
    """An open store."""
    return holdfast.open(url(path, durability))
