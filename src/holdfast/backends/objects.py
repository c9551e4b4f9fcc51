"""Blobs as objects in an S3-compatible store: one for each, named by its digest, under a prefix of the store's own.

A blob is at most a chunk, so each is put in one request, only if it is not there yet; large values are many chunks, so
what a multipart upload would resume resumes here chunk by chunk. Credentials come from the environment, as for any
client of S3, never from a URL. The lock between writers and deleters is the store's (see `gate`): object storage has
none, so a prefix belongs to one store.

No name is trusted for which a request to delete may still be on its way: its sender may be dead or have given up, the
lock be another's, and the bytes be wanted again. So who deletes leaves a mark until each deletion was answered, and
while there is one, what is put gets a name that nobody had before: `DIGEST/TOKEN`.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from holdfast.backends.blobs import check_digest, is_sound, packed, unpacked
from holdfast.backends.gate import BlobLock
from holdfast.errors import Conflict, Invalid, Unavailable

if TYPE_CHECKING:
    from obstore import ListStream, ObjectMeta
    from obstore.store import S3Store

PARAMS = frozenset({"encryption", "endpoint", "kms_key", "region"})
"""What a URL may say beside bucket and prefix."""
KMS = ("aws:kms", "aws:kms:dsse")
OWN_KEY = "sse-c"
"""Encryption by a key of one's own, which the object store is sent with each request, and does not keep."""
ENCRYPTIONS = ("AES256", *KMS, OWN_KEY)
"""How the object store may be told to encrypt what it keeps."""
IN_HEADERS = ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SSE_KMS_KEY_ID")
"""Variables that go into headers of requests as they are."""
RETRIES = 5
"""How often a request is tried again, with growing pauses."""
PATIENCE = 60
"""Seconds after which a request that is tried again and again is given up."""
PAGE = 1000
"""Names that one request lists."""
UNFINISHED = "unfinished"
"""Where the marks are of those who delete."""
OVER = timedelta(hours=1)
"""How long a request may be on its way. Amazon's refuses one that is more than a quarter of an hour old."""

_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_HINTS = {
    "NoSuchBucket": "make the bucket, or name another",
    "169.254.169.254": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; without them the machine itself is asked",
    "InvalidAccessKeyId": "look at AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "look at AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "set the clock of this machine right",
    "ExpiredToken": "renew AWS_SESSION_TOKEN and open the store again",
    "AccessDenied": "give this key the rights to get, put, list and delete there",
    "error sending request": "look at AWS_ENDPOINT_URL, or try again when it is there",
}
"""What to do about an answer, by what stands in it."""

_used_in: int | None = None
"""The process whose threads carry the requests: a child that it forks has none of them."""


class ObjectBlobs:
    """The blobs of one store in a bucket: `s3://bucket/prefix?endpoint=…&region=…`."""

    def __init__(self, url: str, gate: BlobLock, owner: str) -> None:
        try:
            import obstore
        except ImportError:
            raise Unavailable("object storage needs a driver: pip install 'holdfast[s3]'") from None
        bucket, prefix, params = _parts(url)
        self._obstore = obstore
        self._gate = gate
        self._owner = owner
        self._where = f"s3://{bucket}/{prefix}"
        self._mark: str | None = None
        """That of who holds the lock alone, once it deletes."""
        self._alone = self._unsure = False
        self._wary: bool | None = None
        """Whether there was a mark of others when the lock was taken last; none is made while it is shared."""
        _check_environment(params)
        try:
            self._store = _connected(bucket, prefix, params, RETRIES)
            self._once = _connected(bucket, prefix, params, 0)
        except obstore.exceptions.BaseError as error:
            said = str(error).partition("\n")[0]
            raise Invalid(f"{self._where} can't be used as it is said: {said}", place=self._where) from None

    def put(self, digest: str, data: bytes) -> None:
        """Store the bytes.

        Raises:
            Unavailable: the object store refuses, or does not answer.
        """
        check_digest(digest)
        with self._told(f"blob {digest} was not stored"):
            if self._wary is None:
                self._wary = bool(self.unfinished())
            name, content = f"{digest}/{secrets.token_hex(8)}" if self._wary else digest, packed(data)
            if (not self._create(name, content) or self._wary) and not is_sound(self, digest):
                self._obstore.put(self._store, digest, content)

    def _create(self, name: str, content: bytes) -> bool:
        """Store an object unless it is there; whether it was stored."""
        try:
            self._obstore.put(self._store, name, content, mode="create")
        except self._obstore.exceptions.AlreadyExistsError:
            return False
        except NotImplementedError:  # no conditional put is to be asked for; the same name means the same bytes
            self._obstore.put(self._store, name, content)
        return True

    def get(self, digest: str) -> bytes | None:
        """The bytes, or None.

        Raises:
            Corrupt: the object does not hold the bytes of that digest.
            Unavailable: the object store refuses, or does not answer.
        """
        check_digest(digest)
        with self._told(f"blob {digest} can't be read"):
            content = self._content(digest)
            if content is None:
                names = self._names(digest)
                content = self._content(names[0]) if names else None
        return None if content is None else unpacked(digest, content)

    def _content(self, name: str) -> bytes | None:
        try:
            return bytes(self._obstore.get(self._store, name).bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise
            return None

    def delete(self, digest: str) -> bool:
        """Remove the bytes.

        Raises:
            Unavailable: the server refuses; or the lock was lost meanwhile, and nothing was removed.
        """
        check_digest(digest)
        self._gate.confirm()
        with self._told(f"blob {digest} was not deleted"):
            names = self._names(digest)
            if self._is_there(digest):
                names.append(digest)
            if names and self._alone and self._mark is None:
                self._mark = f"{UNFINISHED}/{secrets.token_hex(8)}"
                self._obstore.put(self._store, self._mark, b"")
            for name in names:
                self._delete(name)
        return bool(names)

    def _delete(self, name: str) -> None:
        """Have an object deleted by one request, so that it is known when it is over; by others if that fails."""
        try:
            self._obstore.delete(self._once, name)
        except (self._obstore.exceptions.BaseError, OSError):
            self._unsure = True
            self._obstore.delete(self._store, name)

    def _is_there(self, name: str) -> bool:
        try:
            self._obstore.head(self._store, name)
        except FileNotFoundError:
            return False
        return True

    def _names(self, digest: str) -> list[str]:
        """The names of a blob that was put while its plain one was not trusted."""
        return [entry["path"] for page in self._listed(digest) for entry in page]

    def _listed(self, folder: str | None = None, after: str | None = None) -> ListStream[Sequence[ObjectMeta]]:
        return self._obstore.list(  # pyright: ignore[reportUnknownMemberType]  # by arrow, which is not asked for
            self._store, folder, offset=after, chunk_size=PAGE, return_arrow=False
        )

    def unfinished(self) -> dict[str, datetime]:
        """The marks of those who may have deletions on their way, and when they were made by the server's clock."""
        with self._told("who deletes there can't be told"):
            return {entry["path"]: entry["last_modified"] for page in self._listed(UNFINISHED) for entry in page}

    def scan(self, after: str = "", limit: int = 1000) -> list[str]:
        """Digests above `after`, in order."""
        found: set[str] = set()
        with self._told("the blobs can't be listed"):
            for page in self._listed(after=after or None):
                names = (entry["path"].partition("/")[0] for entry in page)
                found.update(name for name in names if len(name) == 64 and name > after)
                if len(found) >= limit:
                    break
        return sorted(found)[:limit]

    @contextlib.contextmanager
    def shared(self) -> Generator[None]:
        """Keep deleters out."""
        with self._gate.shared():
            self._wary = bool(self.unfinished())
            yield

    @contextlib.contextmanager
    def exclusive(self) -> Generator[None]:
        """Keep everybody else out.

        Raises:
            Conflict: another store has its blobs here.
        """
        with self._gate.exclusive():
            if self.claim(self._owner) != self._owner:
                raise Conflict(f"{self._where} is marked as another store's: nothing in it may be deleted by this one")
            self._mark, self._unsure, self._alone = None, False, True
            try:
                yield
            finally:
                self._alone = False
            if self._mark is not None:
                self._finish(self._mark)

    def _finish(self, mark: str) -> None:
        """Take away the mark of deletions that are over: these, if each was answered at once, and those of long ago."""
        marks = self.unfinished()
        now = marks.pop(mark, None)  # by the clock that made the others
        over = [name for name, made in marks.items() if now is not None and now - made >= OVER]
        with self._told("the mark of what was deleted can't be taken away"):
            for name in over if self._unsure else [*over, mark]:
                self._obstore.delete(self._store, name)

    def claim(self, owner: str) -> str:
        """Mark the prefix as this owner's unless it has one; whose it is."""
        with self._told("the mark of whose it is can't be written or read"):
            # It is looked for first: not every server refuses to overwrite, whatever it is asked.
            if (mark := self._content("owner")) is None:
                self._create("owner", owner.encode())
                mark = self._content("owner")
        return (mark or b"").decode("ascii", "replace")

    @contextlib.contextmanager
    def _told(self, what: str) -> Generator[None]:
        """Tell a failure as one of the store's errors, without what a driver adds for its makers."""
        _check_process()
        try:
            yield
        except (self._obstore.exceptions.BaseError, OSError) as error:
            said = _said(error)
            hint = next((f"; {hint}" for sign, hint in _HINTS.items() if sign in said), "")
            raise Unavailable(f"{what}: {self._where} answers: {said}{hint}", place=self._where) from None


def _said(error: Exception) -> str:
    """What a failure says, but of the server's answer only the code: the rest may repeat what it was sent."""
    text = str(error)
    said, status, answer = text.partition("\n")[0].partition("status code: ")
    if not status:
        return said
    code = _CODE.search(text)
    return f"{said}{status}{answer.partition(':')[0]}" + (f" ({code[1]})" if code else "")


def _check_process() -> None:
    global _used_in  # the driver's threads are the process's, too
    if _used_in is None:
        _used_in = os.getpid()
    if _used_in != os.getpid():
        raise Unavailable(
            "object storage was in use when this process was forked, and its driver can't go on in a fork; "
            "start processes with multiprocessing's 'spawn' or 'forkserver', or fork before the first use"
        )


def _parts(url: str) -> tuple[str, str, Mapping[str, str]]:
    """Bucket, prefix and parameters of a URL.

    Raises:
        Invalid: it is none, or says more than it may; what it says of secrets is not repeated.
    """
    parts = urlsplit(url)
    params = dict(parse_qsl(parts.query, keep_blank_values=True))
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    if parts.scheme != "s3" or not bucket or "@" in bucket or not prefix or parts.fragment:
        raise Invalid("blobs in object storage are given as s3://bucket/prefix; credentials come from the environment")
    for name in params:
        if name not in PARAMS:
            raise Invalid(
                f"unknown parameter {name!r} for s3://{bucket}/{prefix}; it knows {', '.join(sorted(PARAMS))}, "
                "and credentials come from the environment (AWS_ACCESS_KEY_ID and the like)",
                parameter=name,
            )
    _check_encryption(params)
    return bucket, prefix, params


def _check_encryption(params: Mapping[str, str]) -> None:
    encryption = params.get("encryption")
    if encryption not in (None, *ENCRYPTIONS):
        raise Invalid(f"encryption={encryption!r} is not one of {', '.join(ENCRYPTIONS)}", parameter="encryption")
    if "kms_key" in params and encryption not in KMS:
        raise Invalid(f"kms_key= goes with encryption={' or '.join(KMS)}", parameter="kms_key")


def _endpoint(params: Mapping[str, str]) -> str | None:
    """Where the object store is; None for where Amazon's are."""
    return params.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _check_endpoint(endpoint: str | None) -> None:
    if endpoint is None:
        return
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or not endpoint.isprintable() or " " in endpoint or set(endpoint) & set("@?#"):
        raise Invalid(
            "the endpoint of an object store is http://host:port or https://host, and carries no password",
            parameter="endpoint",
        )


def _check_environment(params: Mapping[str, str]) -> None:
    """Refuse credentials that the driver would fail on at each request, or tell; none is repeated.

    Raises:
        Invalid: one is wrong.
    """
    _check_endpoint(_endpoint(params))
    for name, value in [*params.items(), *((name, os.environ.get(name, "")) for name in IN_HEADERS)]:
        if not (value.isascii() and value.isprintable()):
            raise Invalid(f"{name} holds what no header takes, such as a line break at its end", variable=name)
    if (params.get("encryption") or os.environ.get("AWS_SERVER_SIDE_ENCRYPTION")) != OWN_KEY:
        return
    try:
        key = base64.b64decode(os.environ.get("AWS_SSE_CUSTOMER_KEY_BASE64", ""), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Invalid(
            f"encryption={OWN_KEY} needs a key of 32 bytes in base64 in AWS_SSE_CUSTOMER_KEY_BASE64",
            variable="AWS_SSE_CUSTOMER_KEY_BASE64",
        )


def _connected(bucket: str, prefix: str, params: Mapping[str, str], retries: int) -> S3Store:
    from obstore.store import S3Store

    endpoint = _endpoint(params)
    config = {"checksum_algorithm": "SHA256", **({"endpoint": endpoint} if endpoint else {})}
    named = {"region": "region", "encryption": "server_side_encryption", "kms_key": "sse_kms_key_id"}
    config |= {named[name]: value for name, value in params.items() if name in named}
    return S3Store(
        bucket,
        prefix=prefix,
        config=config,  # pyright: ignore[reportArgumentType]  # a typed dictionary of all there is
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://")), "connect_timeout": "5s"},
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=PATIENCE)},
    )
