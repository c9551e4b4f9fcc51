"""Agent records: documents `agents/<id>.json` that tell of one agent's run each, and how old ones are put away.

A record is a JSON object with `status` and `created_at` (RFC 3339). Pruning plans first and says of each record what is
to become of it and why. It spares whoever may still run. Applying the plan looks again at each record: one that was
changed since is skipped and said so. What is put away becomes a document of `trash/agents`, from where `undo` brings it
back; only deleting it there is final.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import msgspec

from holdfast.clock import now
from holdfast.documents.docheads import DocumentInfo
from holdfast.errors import Conflict, Corrupt, HoldfastError, Invalid, NotFound
from holdfast.model import to_micros

if TYPE_CHECKING:
    from holdfast.documents.documents import Documents

CATEGORY = "agents"
ENDED = frozenset({"stopped", "failed", "completed"})
"""The statuses, in lower case, of agents that surely do not run any more."""
_PAGE = 500


class PlannedAgent(msgspec.Struct, frozen=True, kw_only=True):
    """One record in a plan: what it is and `why` it is put away or spared. `created_at` is in microseconds UTC."""

    document: DocumentInfo
    created_at: int
    status: str | None
    why: str


class AppliedAgents(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a plan really did: the ids of the documents put away, and of the others why not."""

    moved: tuple[str, ...]
    skipped: dict[str, str]


class AgentPrune:
    """A plan: `items` are to be put away, the oldest first; `spared` would be, but may not. Nothing is changed yet."""

    def __init__(
        self, documents: Documents, items: list[PlannedAgent], spared: list[PlannedAgent], category: str = CATEGORY
    ) -> None:
        self._documents = documents
        self._category = category
        self._trash = f"trash/{category}"
        self.items = tuple(items)
        self.spared = tuple(spared)

    def __repr__(self) -> str:
        return f"<AgentPrune of {len(self.items)}, {len(self.spared)} spared>"

    @property
    def size(self) -> int:
        """The bytes of the records to be put away."""
        return sum(item.document.size for item in self.items)

    def apply(self) -> AppliedAgents:
        """Put away what is planned and did not change since; again does no harm.

        Raises:
            Unavailable, Uncertain, ReadOnly: the store can't do it now; plan again to go on.
        """
        return self._move(self._category, self._trash, {item.document.id: item.document.rev for item in self.items})

    def undo(self) -> AppliedAgents:
        """Bring back what `apply` put away. A record that was written anew meanwhile stays as it is.

        Raises:
            Unavailable, Uncertain, ReadOnly: the store can't do it now; the same call goes on.
        """
        return self._move(self._trash, self._category, {item.document.id: None for item in self.items})

    def _move(self, source: str, target: str, revs: dict[str, int] | dict[str, None]) -> AppliedAgents:
        moved: list[str] = []
        skipped: dict[str, str] = {}
        for id, rev in revs.items():
            name = id.removeprefix(self._category)
            try:
                self._documents.rename(source + name, target + name, rev=rev)
                moved.append(id)
            except (Conflict, NotFound, Corrupt) as error:
                skipped[id] = error.message
        return AppliedAgents(moved=tuple(moved), skipped=skipped)


def plan(
    documents: Documents,
    max_age: float | None,
    max_count: int | None,
    batch: int | None,
    category: str = CATEGORY,
) -> AgentPrune:
    """See `Documents.prune_agents`."""
    _check("max_age", max_age)
    _check("max_count", max_count)
    _check("batch", batch)
    records = sorted(_records(documents, category), key=lambda record: (record.created_at, record.document.id))
    oldest = -math.inf if max_age is None else now() - max_age * 1e6
    beyond = 0 if max_count is None else max(len(records) - max_count, 0)
    items: list[PlannedAgent] = []
    spared: list[PlannedAgent] = []
    for index, record in enumerate(records):
        if record.created_at < oldest:
            why = f"it is older than {max_age:,} seconds"
        elif index < beyond:
            why = f"there are {len(records):,} records, {max_count:,} are kept"
        else:
            continue
        if record.why:
            spared.append(msgspec.structs.replace(record, why=f"{record.why}, though {why}"))
        elif batch is not None and len(items) >= batch:
            spared.append(msgspec.structs.replace(record, why=f"the batch of {batch:,} is full; plan again"))
        else:
            items.append(msgspec.structs.replace(record, why=why))
    return AgentPrune(documents, items, spared, category)


def _check(name: str, value: float | None) -> None:
    if value is not None and not (value >= 0 and math.isfinite(value)):
        raise Invalid(f"{name} is a number, 0 or more, not {value}", **{name: value})


def _records(documents: Documents, category: str) -> list[PlannedAgent]:
    """Every record; `why` says why it must not be put away, if so."""
    found: dict[str, PlannedAgent] = {}
    cursor: str | None = None
    while True:
        page = documents.list(category, limit=_PAGE, cursor=cursor)
        for info in page:
            if info.kind == "json":
                found[info.id] = _record(documents, info)
        cursor = page.cursor
        if cursor is None:
            return list(found.values())


def _record(documents: Documents, info: DocumentInfo) -> PlannedAgent:
    try:
        document = documents.get(info.id)
        content: Any = None if document is None else document.content
    except Corrupt as error:
        why = f"it can't be read: {error.message}"
        return PlannedAgent(document=info, created_at=info.created_at, status=None, why=why)
    fields = cast("dict[str, Any]", content) if isinstance(content, dict) else {}
    status, created = fields.get("status"), fields.get("created_at")
    at = info.created_at
    if isinstance(created, str):
        try:
            at = to_micros(created)
        except HoldfastError:
            at = info.created_at  # as good as any: when the document was made
    # What tells no status is no record of an agent that could run; it goes by the document's own time.
    runs = isinstance(status, str) and status.lower() not in ENDED
    status = status if isinstance(status, str) else None
    return PlannedAgent(document=info, created_at=at, status=status, why=f"it is {status}" if runs else "")
