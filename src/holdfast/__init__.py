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
    from holdfast.agents import (
        AgentPrune as AgentPrune,
        AppliedAgents as AppliedAgents,
        PlannedAgent as PlannedAgent,
    )
    from holdfast.aio import (
        AsyncStore as AsyncStore,
        aopen as aopen,
    )
    from holdfast.aioartifacts import AsyncArtifacts as AsyncArtifacts
    from holdfast.aiodocuments import AsyncDocuments as AsyncDocuments
    from holdfast.aioretention import (
        AsyncPrunePlan as AsyncPrunePlan,
        AsyncTrash as AsyncTrash,
    )
    from holdfast.aiosession import AsyncSession as AsyncSession
    from holdfast.aioturns import AsyncTurn as AsyncTurn
    from holdfast.artifacts import Artifacts as Artifacts
    from holdfast.branching import Branch as Branch
    from holdfast.check import (
        CheckReport as CheckReport,
        Finding as Finding,
    )
    from holdfast.context import (
        Context as Context,
        ContextUsage as ContextUsage,
    )
    from holdfast.docheads import (
        Document as Document,
        DocumentInfo as DocumentInfo,
    )
    from holdfast.documents import Documents as Documents
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
    from holdfast.hits import SearchHit as SearchHit
    from holdfast.info import (
        Counts as Counts,
        SessionInfo as SessionInfo,
    )
    from holdfast.leases import Lease as Lease
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
    from holdfast.opening import open as open
    from holdfast.pages import Page as Page
    from holdfast.pairs import Problem as Problem
    from holdfast.policies import (
        Chosen as Chosen,
        Policy as Policy,
        Spared as Spared,
    )
    from holdfast.prunes import Prune as Prune
    from holdfast.receipts import Receipt as Receipt
    from holdfast.recovery import (
        Finished as Finished,
        Recovery as Recovery,
    )
    from holdfast.repair import Repair as Repair
    from holdfast.reporting import (
        Check as Check,
        checks_of as checks_of,
        report as report,
    )
    from holdfast.retention import (
        Pruned as Pruned,
        PrunePlan as PrunePlan,
    )
    from holdfast.session import Session as Session
    from holdfast.settings import (
        ConfirmationPolicy as ConfirmationPolicy,
        LlmConfig as LlmConfig,
        PermissionPolicy as PermissionPolicy,
        QueueConfig as QueueConfig,
        SecurityConfig as SecurityConfig,
        SessionConfig as SessionConfig,
    )
    from holdfast.store import Store as Store
    from holdfast.sweeping import Swept as Swept
    from holdfast.tasklists import (
        Task as Task,
        tasks as tasks,
        tasks_of as tasks_of,
    )
    from holdfast.totals import (
        Price as Price,
        UsageReport as UsageReport,
        UsageTotal as UsageTotal,
        priced as priced,
    )
    from holdfast.trash import (
        Purged as Purged,
        Restored as Restored,
        Trash as Trash,
        TrashedSession as TrashedSession,
    )
    from holdfast.turns import Turn as Turn
    from holdfast.watch import Change as Change

__version__ = "0.2.0"

_HOME = {
    "agents": "AgentPrune AppliedAgents PlannedAgent",
    "aio": "AsyncStore aopen",
    "aiodocuments": "AsyncDocuments",
    "aioartifacts": "AsyncArtifacts",
    "aioretention": "AsyncPrunePlan AsyncTrash",
    "aiosession": "AsyncSession",
    "aioturns": "AsyncTurn",
    "artifacts": "Artifacts",
    "branching": "Branch",
    "check": "CheckReport Finding",
    "context": "Context ContextUsage",
    "docheads": "Document DocumentInfo",
    "documents": "Documents",
    "errors": "Conflict Corrupt Deleted Denied Exists HoldfastError Invalid KeyReused LeaseHeld LeaseLost NotFound "
    "ReadOnly Stale TooLarge Trashed Unavailable Uncertain",
    "info": "Counts SessionInfo",
    "model": "Artifact Blob Custom Damaged Edit Event File Large Message Note Other OtherPart Reasoning Report Source "
    "State Step Summary Tasks Text ToolCall ToolResult Uri Usage assistant custom message note reasoning step system "
    "text tool_call tool_result usage usd user",
    "pairs": "Problem",
    "policies": "Chosen Policy Spared",
    "prunes": "Prune",
    "receipts": "Receipt",
    "recovery": "Finished Recovery",
    "repair": "Repair",
    "reporting": "Check checks_of report",
    "retention": "Pruned PrunePlan",
    "session": "Session",
    "settings": "ConfirmationPolicy LlmConfig PermissionPolicy QueueConfig SecurityConfig SessionConfig",
    "leases": "Lease",
    "pages": "Page",
    "hits": "SearchHit",
    "opening": "open",
    "store": "Store",
    "sweeping": "Swept",
    "tasklists": "Task tasks tasks_of",
    "totals": "Price UsageReport UsageTotal priced",
    "trash": "Purged Restored Trash TrashedSession",
    "turns": "Turn",
    "watch": "Change",
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
