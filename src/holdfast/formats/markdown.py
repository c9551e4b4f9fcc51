"""A session as Markdown, for a person to read.

Words stand in quotes, so that a heading or an open fence in them ends with them; code stands in fences longer than any
fence inside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from holdfast.formats.blocks import Block, blocks, lines_of, role_of, when
from holdfast.formats.calls import Outcomes, totals
from holdfast.formats.words import safe_line
from holdfast.heads.info import SessionInfo
from holdfast.model import Event, Large

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
_FENCE = re.compile(r"^\s*(`{3,})")


def write_markdown(info: SessionInfo, events: Iterable[Event], outcomes: Outcomes) -> Iterator[str]:
    """The document's lines, each with its newline."""
    yield f"# {_inline(info.title or info.name or info.id)}\n\n"
    facts = {"session": info.id, "name": info.name, "user": info.user, "agent": info.agent, "project": info.project}
    facts |= {"parent": info.parent, "state": info.state, "labels": ", ".join(info.labels)}
    facts |= {"created": when(info.created_at), "active": when(info.updated_at), "counts": ", ".join(totals(info))}
    for name, value in facts.items():
        if value:
            yield f"- **{name}** {_inline(value)}\n"
    for event in events:
        hidden = " · hidden" if event.hidden else ""
        yield f"\n## {_inline(role_of(event))} · {event.seq} · {when(event.at)}{hidden}\n"
        for block in blocks(event, outcomes):
            yield "\n"
            yield from _block(block)


def _inline(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", safe_line(text))


def _block(block: Block) -> Iterator[str]:
    if block.title:
        yield f"*{_inline(block.title)}*\n" if block.kind == "fact" else f"**{_inline(block.title)}**\n"
    if block.content == "":
        return
    if block.title:
        yield "\n"
    if block.kind == "code":
        fence = _fence(block.content)
        yield f"{fence}\n"
        for line in lines_of(block.content):
            yield f"{line}\n"
        yield f"{fence}\n"
    else:
        for line in lines_of(block.content):
            yield f"> {line}\n" if line else ">\n"


def _fence(content: str | Large) -> str:
    longest = max((len(m[1]) for line in lines_of(content) if (m := _FENCE.match(line))), default=2)
    return "`" * (longest + 1)
