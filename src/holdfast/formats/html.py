"""Sessions as one HTML file that opens from disk: no network, no scripts, nothing it refers to.

Every stored character passes through `_text`, and the file's own policy forbids all but its one style sheet; so what a
transcript holds is read and never run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape

from holdfast.formats.blocks import Block, blocks, lines_of, role_of, when
from holdfast.formats.calls import Outcomes, totals
from holdfast.formats.words import safe, safe_line
from holdfast.heads.info import SessionInfo
from holdfast.model import Event, Large

FOLD = 12
"""Lines of code above which it is folded."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; --bad: #c33; --user: #2a7; --assistant: #38c; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: 0; }
header p, .at, .fact { color: var(--dim); font-size: .85rem; margin: .2rem 0; }
article { border-left: 3px solid var(--line); padding: 0 0 .2rem .8rem; margin: 1.2rem 0; break-inside: avoid-page; }
article.user { border-color: var(--user); } article.assistant { border-color: var(--assistant); }
article.hidden { opacity: .55; }
h2 { font-size: .95rem; margin: 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; }
pre.words { font: inherit; } pre.thoughts { font: italic 1em/1.5 inherit; color: var(--dim); }
pre.code { font: .85rem/1.45 ui-monospace, monospace; background: #8881; padding: .5rem; border-radius: .3rem; }
.title { font: .85rem ui-monospace, monospace; margin: .4rem 0 0; } .bad { color: var(--bad); }
@media print { body { max-width: none; margin: 0; } details > pre { display: block; } }
"""
_POLICY = (
    "default-src 'none'; style-src 'sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode() + "'"
)


def start_html(title: str) -> Iterator[str]:
    """How the file begins."""
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f'<meta name="referrer" content="no-referrer">\n<title>{_line(title)}</title>\n'
    yield f"<style>{_STYLE}</style>\n</head>\n<body>\n"


def end_html() -> Iterator[str]:
    """How it ends."""
    yield "</body>\n</html>\n"


def write_html(info: SessionInfo, events: Iterable[Event], outcomes: Outcomes) -> Iterator[str]:
    """One session's section."""
    yield f"<header>\n<h1>{_line(info.title or info.name or info.id)}</h1>\n"
    who = [info.id, info.name, info.user, info.agent, info.project, info.state, *(f"#{label}" for label in info.labels)]
    yield f"<p>{_line(' · '.join(word for word in who if word))}</p>\n<p>{_line(' · '.join(totals(info)))}</p>\n"
    yield f"<p>{when(info.created_at)} to {when(info.updated_at)}</p>\n</header>\n<main>\n"
    for event in events:
        yield from _event(event, outcomes)
    yield "</main>\n"


def _event(event: Event, outcomes: Outcomes) -> Iterator[str]:
    role = role_of(event)
    classes = role if role in ("user", "assistant", "system", "tool") else "other"
    yield f'<article class="{classes}{" hidden" if event.hidden else ""}">\n<h2>{_line(role)}</h2>\n'
    yield f'<p class="at">{event.seq} · {when(event.at)}{" · hidden" if event.hidden else ""}</p>\n'
    for block in blocks(event, outcomes):
        yield from _block(block)
    yield "</article>\n"


def _block(block: Block) -> Iterator[str]:
    bad = " bad" if block.bad else ""
    if block.kind == "fact":
        yield f'<p class="fact{bad}">{_line(block.title)}</p>\n'
        return
    if block.title:
        yield f'<p class="title{bad}">{_line(block.title)}</p>\n'
    if block.content == "":
        return
    folded = block.kind == "code" and _is_long(block.content)
    if folded:
        yield f"<details><summary>{_line(_first(block.content))}</summary>\n"
    yield f'<pre class="{block.kind}">'
    for index, line in enumerate(lines_of(block.content)):
        yield ("\n" if index else "") + _text(line)
    yield "</pre>\n</details>\n" if folded else "</pre>\n"


def _is_long(content: str | Large) -> bool:
    return isinstance(content, Large) or content.count("\n") > FOLD or len(content) > 2000


def _first(content: str | Large) -> str:
    """How a folded text begins."""
    beginning = content.preview if isinstance(content, Large) else content[:1000]
    line = next((line for line in beginning.splitlines() if line.strip()), "")
    return line if len(line) <= 80 else line[:79] + "…"


def _text(text: str) -> str:
    return escape(safe(text), quote=True)


def _line(text: str) -> str:
    return escape(safe_line(text), quote=True)
