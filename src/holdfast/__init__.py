"""holdfast keeps the sessions of AI agents: what was said, which tools ran, what it cost, where the agent stood.

    import holdfast
    from holdfast import user, assistant

    with holdfast.open() as store:
        session = store.session("support-42")
        session.append(user("Where is my order?"))

Names are imported when they are first used, so that starting stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.aio.artifacts import AsyncArtifacts as AsyncArtifacts
    from holdfast.aio.documents import AsyncDocuments as AsyncDocuments
    from holdfast.aio.moving import (
        acopy_store as acopy_store,
        afollow_store as afollow_store,
    )
    from holdfast.aio.retention import (
        AsyncPrunePlan as AsyncPrunePlan,
        AsyncTrash as AsyncTrash,
    )
    from holdfast.aio.session import AsyncSession as AsyncSession
    from holdfast.aio.store import (
        AsyncStore as AsyncStore,
        aopen as aopen,
    )
    from holdfast.aio.turns import AsyncTurn as AsyncTurn
    from holdfast.artifacts.artifacts import Artifacts as Artifacts
    from holdfast.artifacts.sweeping import Swept as Swept
    from holdfast.check import (
        CheckReport as CheckReport,
        Finding as Finding,
    )
    from holdfast.context.context import (
        Context as Context,
        ContextUsage as ContextUsage,
    )
    from holdfast.context.pairs import Problem as Problem
    from holdfast.context.repair import Repair as Repair
    from holdfast.copies import Copied as Copied
    from holdfast.documents.agents import (
        AgentPrune as AgentPrune,
        AppliedAgents as AppliedAgents,
        PlannedAgent as PlannedAgent,
    )
    from holdfast.documents.docheads import (
        Document as Document,
        DocumentInfo as DocumentInfo,
    )
    from holdfast.documents.documents import Documents as Documents
    from holdfast.errors import (
        Conflict as Conflict,
        Corrupt as Corrupt,
        Deleted as Deleted,
        Denied as Denied,
        Exists as Exists,
        HoldfastError as HoldfastError,
        Invalid as Invalid,
        KeyReused as KeyReused,
        LeaseHeld as LeaseHeld,
        LeaseLost as LeaseLost,
        NotFound as NotFound,
        ReadOnly as ReadOnly,
        Stale as Stale,
        TooLarge as TooLarge,
        Trashed as Trashed,
        Unavailable as Unavailable,
        Uncertain as Uncertain,
    )
    from holdfast.events.receipts import Receipt as Receipt
    from holdfast.events.reporting import (
        Check as Check,
        checks_of as checks_of,
        report as report,
    )
    from holdfast.events.tasklists import (
        Task as Task,
        tasks as tasks,
        tasks_of as tasks_of,
    )
    from holdfast.events.totals import (
        Price as Price,
        UsageReport as UsageReport,
        UsageTotal as UsageTotal,
        priced as priced,
    )
    from holdfast.finding.hits import SearchHit as SearchHit
    from holdfast.finding.pages import Page as Page
    from holdfast.finding.watch import Change as Change
    from holdfast.heads.info import (
        Counts as Counts,
        SessionInfo as SessionInfo,
    )
    from holdfast.heads.settings import (
        ConfirmationPolicy as ConfirmationPolicy,
        LlmConfig as LlmConfig,
        PermissionPolicy as PermissionPolicy,
        QueueConfig as QueueConfig,
        SecurityConfig as SecurityConfig,
        SessionConfig as SessionConfig,
    )
    from holdfast.history.branching import Branch as Branch
    from holdfast.model import (
        Artifact as Artifact,
        Blob as Blob,
        Custom as Custom,
        Damaged as Damaged,
        Edit as Edit,
        Event as Event,
        File as File,
        Large as Large,
        Message as Message,
        Note as Note,
        Other as Other,
        OtherPart as OtherPart,
        Reasoning as Reasoning,
        Report as Report,
        Source as Source,
        State as State,
        Step as Step,
        Summary as Summary,
        Tasks as Tasks,
        Text as Text,
        ToolCall as ToolCall,
        ToolResult as ToolResult,
        Uri as Uri,
        Usage as Usage,
        assistant as assistant,
        custom as custom,
        message as message,
        note as note,
        reasoning as reasoning,
        step as step,
        system as system,
        text as text,
        tool_call as tool_call,
        tool_result as tool_result,
        usage as usage,
        usd as usd,
        user as user,
    )
    from holdfast.moving.backups import Backup as Backup
    from holdfast.moving.copying import (
        CopyReport as CopyReport,
        copy_store as copy_store,
    )
    from holdfast.moving.following import (
        Behind as Behind,
        follow_store as follow_store,
    )
    from holdfast.opening import open as open
    from holdfast.reading import Replica as Replica
    from holdfast.retention.policies import (
        Chosen as Chosen,
        Policy as Policy,
        Spared as Spared,
    )
    from holdfast.retention.prunes import Prune as Prune
    from holdfast.retention.retention import (
        Pruned as Pruned,
        PrunePlan as PrunePlan,
    )
    from holdfast.retention.trash import (
        Purged as Purged,
        Restored as Restored,
        Trash as Trash,
        TrashedSession as TrashedSession,
    )
    from holdfast.session import Session as Session
    from holdfast.store import Store as Store
    from holdfast.turns.leases import Lease as Lease
    from holdfast.turns.recovery import (
        Finished as Finished,
        Recovery as Recovery,
    )
    from holdfast.turns.turns import Turn as Turn

__version__ = "0.2.0"

_HOME = {
    "documents.agents": "AgentPrune AppliedAgents PlannedAgent",
    "aio.moving": "acopy_store afollow_store",
    "aio.store": "AsyncStore aopen",
    "aio.documents": "AsyncDocuments",
    "aio.artifacts": "AsyncArtifacts",
    "aio.retention": "AsyncPrunePlan AsyncTrash",
    "aio.session": "AsyncSession",
    "aio.turns": "AsyncTurn",
    "artifacts.artifacts": "Artifacts",
    "history.branching": "Branch",
    "check": "CheckReport Finding",
    "copies": "Copied",
    "moving.backups": "Backup",
    "moving.copying": "CopyReport copy_store",
    "moving.following": "Behind follow_store",
    "context.context": "Context ContextUsage",
    "documents.docheads": "Document DocumentInfo",
    "documents.documents": "Documents",
    "errors": "Conflict Corrupt Deleted Denied Exists HoldfastError Invalid KeyReused LeaseHeld LeaseLost NotFound "
    "ReadOnly Stale TooLarge Trashed Unavailable Uncertain",
    "heads.info": "Counts SessionInfo",
    "model": "Artifact Blob Custom Damaged Edit Event File Large Message Note Other OtherPart Reasoning Report Source "
    "State Step Summary Tasks Text ToolCall ToolResult Uri Usage assistant custom message note reasoning step system "
    "text tool_call tool_result usage usd user",
    "context.pairs": "Problem",
    "retention.policies": "Chosen Policy Spared",
    "retention.prunes": "Prune",
    "events.receipts": "Receipt",
    "turns.recovery": "Finished Recovery",
    "context.repair": "Repair",
    "events.reporting": "Check checks_of report",
    "retention.retention": "Pruned PrunePlan",
    "session": "Session",
    "heads.settings": "ConfirmationPolicy LlmConfig PermissionPolicy QueueConfig SecurityConfig SessionConfig",
    "turns.leases": "Lease",
    "finding.pages": "Page",
    "finding.hits": "SearchHit",
    "opening": "open",
    "store": "Store",
    "artifacts.sweeping": "Swept",
    "events.tasklists": "Task tasks tasks_of",
    "events.totals": "Price UsageReport UsageTotal priced",
    "retention.trash": "Purged Restored Trash TrashedSession",
    "turns.turns": "Turn",
    "finding.watch": "Change",
    "reading": "Replica",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [*sorted(_MODULE_OF), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]  # tests pin it


if not TYPE_CHECKING:  # a type checker knows the names from above, and shall tell a wrong one

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
        value = getattr(import_module(f"holdfast.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
