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
    from holdfast.aio import AsyncSession, AsyncStore, aopen
    from holdfast.check import CheckReport, Finding
    from holdfast.errors import (
        Conflict,
        Corrupt,
        Deleted,
        Denied,
        Exists,
        HoldfastError,
        Invalid,
        KeyReused,
        LeaseLost,
        NotFound,
        ReadOnly,
        Stale,
        TooLarge,
        Unavailable,
        Uncertain,
    )
    from holdfast.info import Counts, SessionInfo
    from holdfast.model import (
        Artifact,
        Blob,
        Custom,
        Damaged,
        Event,
        File,
        Large,
        Message,
        Note,
        Other,
        OtherPart,
        Reasoning,
        Report,
        Source,
        State,
        Step,
        Summary,
        Tasks,
        Text,
        ToolCall,
        ToolResult,
        Uri,
        Usage,
        assistant,
        custom,
        message,
        note,
        reasoning,
        step,
        system,
        text,
        tool_call,
        tool_result,
        usage,
        usd,
        user,
    )
    from holdfast.session import Receipt, Session
    from holdfast.store import Change, Page, SearchHit, Store, open

__version__ = "0.1.0"

_HOME = {
    "aio": "AsyncSession AsyncStore aopen",
    "check": "CheckReport Finding",
    "errors": "Conflict Corrupt Deleted Denied Exists HoldfastError Invalid KeyReused LeaseLost NotFound ReadOnly Stale "
    "TooLarge Unavailable Uncertain",
    "info": "Counts SessionInfo",
    "model": "Artifact Blob Custom Damaged Event File Large Message Note Other OtherPart Reasoning Report Source State "
    "Step Summary Tasks Text ToolCall ToolResult Uri Usage assistant custom message note reasoning step system text "
    "tool_call tool_result usage usd user",
    "session": "Receipt Session",
    "store": "Change Page SearchHit Store open",
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = [*sorted(_MODULE_OF), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]  # tested name by name


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    value = getattr(import_module(f"holdfast.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
