"""What an import says of each source: what it took, what it could not read, what was odd."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from holdfast.errors import HoldfastError, ReadOnly, Unavailable, Uncertain

TOLD = 1000
"""Unreadable records of one file that a report names; it counts them all."""


class Unreadable(msgspec.Struct, frozen=True):
    """A line that was kept and could not be read, and why."""

    line: int
    reason: str


class FileReport(msgspec.Struct, kw_only=True):
    """What was taken from one file.

    `events` were stored now, `known` were there already; a document counts as one. `unknown` counts lines by type, of
    types that this version does not know; they are kept under `x.<program>.<type>`. `unreadable` names the first of
    `unreadable_lines`, kept as `x.<program>.unreadable` or, over 32 MiB, `x.<program>.oversize`. Of `size` bytes,
    `bytes` were taken now; `left` are half a line that is still being written. `skipped` says why nothing was to be
    done, `error` what went wrong.
    `notes` are what is odd about the source.
    """

    path: str
    program: str | None = None
    session: str | None = None
    document: str | None = None
    events: int = 0
    known: int = 0
    unknown: dict[str, int] = {}
    unreadable: list[Unreadable] = []
    unreadable_lines: int = 0
    size: int = 0
    bytes: int = 0
    left: int = 0
    skipped: str | None = None
    error: str | None = None
    notes: list[str] = []


@contextmanager
def told_in(report: FileReport) -> Generator[None]:
    """What goes wrong with a file is put into its report; what is wrong with the store is raised."""
    try:
        yield
    except (Unavailable, Uncertain, ReadOnly):
        raise
    except OSError as error:
        report.error = error.strerror or str(error)
    except HoldfastError as error:
        report.error = error.message
    except Exception as error:  # noqa: BLE001  # a bug that one file brings to light must not keep the others out
        report.error = f"reading it failed: {type(error).__name__}: {error}"
