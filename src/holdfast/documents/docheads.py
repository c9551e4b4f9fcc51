"""What can be a document, and how its head says it: ids, sources, and what stands in the tags and the body.

The head's id is the owner (nothing for the store's own) and the document's id, with a colon between that no owner's
part holds. The body has the source, or leads to it: `{"v":1,"text":…}` or `{"v":1,"large":…}`.
"""

from __future__ import annotations

import codecs
import io
import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, TypeAlias, cast

import msgspec

from holdfast import codec
from holdfast.errors import Corrupt, Invalid, TooLarge
from holdfast.heads.info import body_of, created_at, number_in
from holdfast.model import LargeRef
from holdfast.plan import Head, Ref, check_id
from holdfast.storage import Storage

DOC = "doc"
"""The kind of head that a document is."""
KINDS = ("json", "md")
MAX_NESTING = 200
"""How deep the arrays and objects of a source may nest."""
PAGE = 1000

Kind: TypeAlias = Literal["json", "md"]


class DocumentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a document without its content. Times are microseconds since 1970 UTC, `size` is in bytes.

    `rev` counts its changes, also over deletions. `as_given` says that the source is what somebody wrote, byte for
    byte; else it is compact JSON that a value was made into.
    """

    id: str
    user: str | None = None
    rev: int = 0
    size: int = 0
    as_given: bool = False
    created_at: int = 0
    updated_at: int = 0

    @property
    def kind(self) -> Kind:
        """json or md, by the end of the id."""
        return "md" if self.id.endswith(".md") else "json"

    @property
    def category(self) -> str:
        """What stands before the last slash of the id."""
        return self.id.rpartition("/")[0]

    @property
    def name(self) -> str:
        """What stands between the last slash and the end that tells the kind."""
        return self.id.rpartition("/")[2].rpartition(".")[0]


class Document(DocumentInfo, frozen=True, kw_only=True):
    """A document with its source."""

    source: bytes

    @property
    def content(self) -> Any:
        """The value of a JSON document, the text of a Markdown one."""
        return self.text if self.kind == "md" else codec.decode_json(self.source)

    @property
    def text(self) -> str:
        """The source as text."""
        return self.source.decode("utf-8", "surrogatepass")


def kind_of(id: object) -> Kind:
    """The kind of document that an id names.

    Raises:
        Invalid: no document can have it; the message says why.
        TooLarge: it takes more than 512 bytes.
    """
    check_id(id, "document id")
    id = cast("str", id)
    category, slash, name = id.rpartition("/")
    stem, dot, kind = name.rpartition(".")
    if not slash:
        raise Invalid(f"document id {id!r} has no category; write category/name.md or category/name.json", document=id)
    if not dot or kind not in KINDS:
        raise Invalid(f"document id {id!r} ends neither in .json nor in .md, which tells its kind", document=id)
    if not stem:
        raise Invalid(f"document id {id!r} has no name before the .{kind}", document=id)
    check_category(category)
    return kind  # type: ignore[return-value]  # it is one of KINDS


def check_category(category: object) -> None:
    """Refuse what can be no category: empty, or with an empty part.

    Raises:
        Invalid, TooLarge: it is none.
    """
    check_id(category, "category")
    if not all(cast("str", category).split("/")):
        raise Invalid(f"category {category!r} has an empty part; write it like cron/jobs", category=category)


def check_json(id: str, source: bytes) -> None:
    """Refuse a source that is no JSON, or whose numbers no JSON value can be.

    Raises:
        Invalid: it is none; the message says where.
    """

    def refused(text: str) -> Any:
        raise ValueError(f"it holds {text[:40]}, which is no number of JSON")

    def real(text: str) -> float:
        return value if math.isfinite(value := float(text)) else refused(text)

    try:
        value = json.loads(source.decode("utf-8"), parse_constant=refused, parse_float=real)
    except ValueError as error:
        raise Invalid(f"{id!r} is to be JSON and is not: {error}", document=id) from None
    except RecursionError:
        value = None
    if (value is None and source.strip() != b"null") or _depth(value) > MAX_NESTING:
        raise TooLarge(f"{id!r} nests deeper than {MAX_NESTING} levels", document=id, limit=MAX_NESTING)


def _depth(value: Any) -> int:
    """How deep a value nests, as far as matters."""
    level, depth = [value], 0
    while level and depth <= MAX_NESTING:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner += cast("dict[str, Any]", item).values()
            elif isinstance(item, list):
                inner += cast("list[Any]", item)
        depth += any(isinstance(item, dict | list) for item in level)
        level = inner
    return depth


def text_of(id: str, source: bytes) -> str:
    """The text of a source.

    Raises:
        Invalid: it is no UTF-8.
    """
    try:
        return source.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Invalid(f"{id!r} is no UTF-8: {error}", document=id) from None


class Checked(io.RawIOBase):
    """A stream of Markdown of which the first part was read already; it must be UTF-8."""

    def __init__(self, id: str, first: bytes, stream: BinaryIO) -> None:
        self._id = id
        self._first = first
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")

    def read(self, size: int = -1) -> bytes:
        """The next bytes.

        Raises:
            Invalid: they are no UTF-8.
        """
        data, self._first = self._first or self._stream.read(size), b""
        try:
            self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise Invalid(f"{self._id!r} is no UTF-8: {error}", document=self._id) from None
        return data


def prefix_of(user: str | None) -> str:
    """What the head ids of a user's documents begin with, and nobody else's."""
    return (user or "").replace("%", "%25").replace(":", "%3A") + ":"


def doc_ref(user: str | None, id: str) -> Ref:
    """The name of a document's head."""
    return Ref(DOC, prefix_of(user) + id)


def id_of(ref: Ref) -> str:
    """The document that a head is."""
    return ref.id.partition(":")[2]


def owner_of(ref: Ref) -> str | None:
    """The user whose document a head is; None for the store's own."""
    return ref.id.partition(":")[0].replace("%3A", ":").replace("%25", "%") or None


def large_of(body: bytes) -> LargeRef | None:
    """The large value that a document's body leads to; None if it holds its source.

    Raises:
        Corrupt: it can't be read.
    """
    if b"large" not in body and b"\\u00" not in body:
        return None
    plain = codec.decode_json(body)
    if not isinstance(plain, dict) or "large" not in plain:
        return None
    try:
        return msgspec.convert(cast("dict[str, Any]", plain)["large"], LargeRef)
    except msgspec.ValidationError as error:
        raise Corrupt(f"a document's large value can't be told: {error}") from None


def document_info(head: Head) -> DocumentInfo:
    """A document's head, read.

    Raises:
        Corrupt: it says what none can say: it came from elsewhere.
    """
    return DocumentInfo(
        id=id_of(head.ref),
        user=head.tags.get("user"),
        rev=head.rev,
        size=number_in(head, "size"),
        as_given="given" in head.tags,
        created_at=created_at(head),
        updated_at=head.at,
    )


def all_documents(store: Storage) -> Iterator[tuple[Ref, Head | None]]:
    """Every document that the store shows, of whatever user, by id; None where its head can't be trusted."""
    after = ""
    met: set[Ref] = set()
    while True:
        heads = store.backend.scan(DOC, after, PAGE)
        yield from ((ref, None) for ref in heads.damaged if ref not in met)
        met.update(heads.damaged)
        yield from ((head.ref, head) for head in heads)
        if not heads:
            return
        after = heads[-1].ref.id


def digests(store: Storage, head: Head) -> list[str]:
    """The blobs that a document needs.

    Raises:
        Corrupt: what lists them is damaged.
    """
    large = large_of(head.body)
    return [] if large is None else store.large.digests(large)


def source_of(store: Storage, head: Head) -> BinaryIO:
    """A stream of a document's source.

    Raises:
        Corrupt: the head does not lead to one.
    """
    if (large := large_of(head.body)) is not None:
        return store.large.opener(large)()
    text = body_of(head).get("text")
    if not isinstance(text, str):
        raise Corrupt(f"document {id_of(head.ref)!r} has no source", document=id_of(head.ref))
    return io.BytesIO(text.encode("utf-8", "surrogatepass"))


def problem_of(store: Storage, head: Head) -> str | None:
    """What is wrong with a document whose head can be trusted; None if nothing is. It reads the whole source."""
    try:
        size = 0
        with source_of(store, head) as stream:
            while data := stream.read(1 << 20):
                size += len(data)
        told = document_info(head).size
    except Corrupt as error:
        return error.message
    return None if size == told else f"it has {size:,} bytes and should have {told:,}"
