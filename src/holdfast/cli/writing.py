"""Where a command writes: a file appears under its name when it is whole, and replaces another one only on demand."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, BinaryIO

from holdfast.errors import Exists, Invalid
from holdfast.formats.words import safe
from holdfast.paths import appear, as_path, is_stream

if TYPE_CHECKING:
    from holdfast.cli.app import App

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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
    if is_stream(output):
        raise Invalid(f"{output} is a pipe or device, which is not replaced; name a file, or - for stdout", file=output)
    beside = f"{output}.{os.getpid()}.tmp"
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(beside, output)
        else:
            appear(beside, output)
    except FileExistsError:
        raise refusal from None
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = output  # a write knows only the number of its file
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)


def put_out(app: App, chunks: Iterable[bytes]) -> None:
    """Stored bytes to stdout: as they are, or for a terminal as text whose control characters are shown as escapes."""
    if not app.terminal:
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    for chunk in chunks:
        sys.stdout.write(safe(decoder.decode(chunk)))
    sys.stdout.write(safe(decoder.decode(b"", final=True)))
