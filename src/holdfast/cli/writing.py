"""Where a command writes: a file appears under its name when it is whole, and replaces another one only on demand."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from typing import BinaryIO

from holdfast.errors import Exists
from holdfast.paths import as_path


@contextlib.contextmanager
def written(output: str | None, force: bool) -> Generator[BinaryIO]:
    """Where to write: stdout, or a file that appears under its name when it is whole."""
    if output is None or output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    refusal = Exists(f"{output} is there already; --force replaces it", file=output)
    output = as_path(output)
    if not force and os.path.lexists(output):
        raise refusal
    beside = f"{output}.{os.getpid()}.tmp"
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(beside, output)
        else:
            os.link(beside, output)  # unlike a rename, refuses a file that appeared meanwhile
    except FileExistsError:
        raise refusal from None
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
