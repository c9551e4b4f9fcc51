"""Values too large for an event: cut into chunks, kept once each in the blob store, and read back as a stream.

A value up to one chunk is one blob under its own digest. A longer one is a blob for each chunk and one more, the
manifest, that lists them; so no more than a chunk is ever held in memory. Everything is stored before the event that
refers to it is committed: a crash in between leaves a blob that nobody needs, never an event without its bytes.
"""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO

import msgspec

from holdfast.backend import CHUNK, Blobs
from holdfast.errors import Corrupt
from holdfast.model import LargeRef

_Manifest = list[str]
_is_digest = re.compile("[0-9a-f]{64}").fullmatch
_LEVELS = 4
"""Manifests above one another at the most; the second is for values beyond 16 GB."""


class Hold:
    """From the first value that one thread puts in a block until its end, no sweep takes values away.

    It costs next to nothing as long as nothing is put: then no lock is taken. A block may stand inside of another one.
    """

    __slots__ = ("_depth", "_shared")

    def __init__(self) -> None:
        self._depth = 0
        self._shared: contextlib.ExitStack | None = None

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0 and self._shared is not None:
            shared, self._shared = self._shared, None
            shared.close()

    @property
    def used(self) -> bool:
        """Whether something was put in this block."""
        return self._shared is not None

    def share(self, blobs: Blobs) -> None:
        """Something is about to be put."""
        if self._shared is None:
            shared = contextlib.ExitStack()
            shared.enter_context(blobs.shared())
            self._shared = shared


class _Mine(threading.local):
    """What each thread has for itself. It is looked at once for a block: that takes longer than any other attribute."""

    def __init__(self) -> None:
        self.hold = Hold()


class LargeValues:
    """The large values of one store, over its blobs."""

    def __init__(self) -> None:
        self.blobs: Blobs | None = None
        self._mine = _Mine()

    @property
    def hold(self) -> Hold:
        """Stands around what puts values and then commits what refers to them."""
        return self._mine.hold

    def put(self, stream: BinaryIO | bytes, form: str) -> LargeRef:
        """Store all bytes of `stream`, chunk by chunk."""
        with self.hold:
            self.hold.share(self._blobs())
            return self._put(stream, form)

    def put_blob(self, digest: str, data: bytes) -> None:
        """Store one blob as it is, in a block of `hold` that ends with the commit that needs it."""
        with self.hold:
            self.hold.share(self._blobs())
            self._blobs().put(digest, data)

    def _put(self, stream: BinaryIO | bytes, form: str) -> LargeRef:
        import hashlib  # loads OpenSSL, which most programs can do without

        source = io.BytesIO(stream) if isinstance(stream, bytes) else stream
        blobs = self._blobs()
        whole = hashlib.sha256()
        digests: _Manifest = []
        size = 0
        while chunk := _read_full(source, CHUNK):
            whole.update(chunk)
            size += len(chunk)
            digests.append(hashlib.sha256(chunk).hexdigest())
            blobs.put(digests[-1], chunk)
        if not digests:
            digests.append(whole.hexdigest())
            blobs.put(digests[0], b"")
        if len(digests) == 1:
            return LargeRef(sha256=digests[0], size=size, form=form)
        listed = io.BytesIO(msgspec.json.encode(digests))
        # A manifest may itself be longer than a chunk (beyond 16 GB): then it is a large value like any other.
        manifest = self._put(listed.getvalue(), "json")
        return LargeRef(sha256=whole.hexdigest(), size=size, form=form, manifest=_encode_ref(manifest))

    def opener(self, ref: LargeRef) -> Callable[[], BinaryIO]:
        """What opens a buffered stream over the stored bytes."""
        return lambda: io.BufferedReader(_Chunks(self._blobs(), self._digests(ref), ref), CHUNK)

    def digests(self, ref: LargeRef) -> list[str]:
        """Every blob that a large value needs: its chunks and what lists them.

        Raises:
            Corrupt: what lists them is damaged or missing, or something names no blob.
        """
        lists = [] if ref.manifest is None else self.digests(_decode_ref(ref.manifest))
        return [*lists, *self._digests(ref)]

    def _digests(self, ref: LargeRef) -> _Manifest:
        found = [ref.sha256] if ref.manifest is None else self._listed(ref.manifest)
        # A reference is data, and may have been made up: it must not be more than one damaged value.
        if strange := next((digest for digest in found if not _is_digest(digest)), None):
            raise Corrupt(f"{strange[:80]!r} is the digest of no blob")
        return found

    def _listed(self, manifest: str) -> _Manifest:
        with self.opener(_decode_ref(manifest))() as stream:
            try:
                return msgspec.json.decode(stream.read(), type=_Manifest)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise Corrupt(f"the list of the chunks of a large value can't be read: {error}") from None

    def _blobs(self) -> Blobs:
        if self.blobs is None:
            raise RuntimeError("the store is not open yet")
        return self.blobs


def _encode_ref(ref: LargeRef) -> str:
    return ref.sha256 if ref.manifest is None else f"{ref.sha256}:{ref.size}:{ref.manifest}"


def _decode_ref(text: str) -> LargeRef:
    sha256, _, rest = text.partition(":")
    size, _, manifest = rest.partition(":")
    if text.count(":") > 2 * _LEVELS or len(size) > 19 or not (size or "0").isdecimal():
        raise Corrupt(f"{text[:80]!r} names no list of the chunks of a large value")
    return LargeRef(sha256=sha256, size=int(size or 0), form="json", manifest=manifest or None)


def _read_full(stream: BinaryIO, size: int) -> bytes:
    """Exactly `size` bytes, or what is left: a pipe may give less than asked for."""
    data = stream.read(size)
    while 0 < len(data) < size:
        more = stream.read(size - len(data))
        if not more:
            break
        data += more
    return data


class _Chunks(io.RawIOBase):
    """A readable stream over chunks, one in memory at a time."""

    def __init__(self, blobs: Blobs, digests: _Manifest, ref: LargeRef) -> None:
        self._blobs = blobs
        self._digests = digests
        self._ref = ref
        self._next = 0
        self._chunk = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed's Buffer has no slicing
        while not self._chunk and self._next < len(self._digests):
            digest = self._digests[self._next]
            data = self._blobs.get(digest)
            if data is None:
                raise Corrupt(
                    f"blob {digest} is missing: bytes from {self._next * CHUNK:,} on of a value of {self._ref.size:,}",
                    digest=digest,
                )
            self._chunk = memoryview(data)
            self._next += 1
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size
