"""What a search means, once for every backend; docs/SEARCH.md tells it in full, for texts and for queries.

The core turns text into a stream of tokens (`normalise`), reads a query into a small tree (`parse`) and cuts
snippets (`snippet`). A backend only finds and ranks token streams. So a query hits the same events everywhere.
The stream is lower case with single spaces between its tokens, which hold only ASCII letters and digits and non-ASCII
characters; so SQLite's FTS5 with `tokenize='ascii'` cuts it exactly there."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TypeAlias

from holdfast.errors import Invalid

__all__ = [
    "BREAK",
    "MAX_QUERY_CHARS",
    "MAX_TERMS",
    "MAX_WHOLE",
    "NORM",
    "And",
    "Node",
    "Or",
    "Phrase",
    "QueryError",
    "Snippet",
    "matches",
    "normalise",
    "parse",
    "score",
    "snippet",
    "to_fts5",
]

NORM = 1
"""Version of the normalisation. An index that was built under another number must be rebuilt."""

MAX_QUERY_CHARS = 1000
MAX_TERMS = 64

MAX_WHOLE = 64
"""Longest uncut form of a camelCase word, in UTF-8 bytes; longer ones are encoded data rather than names."""

BREAK = "\ue000"
"""The token before each uncut form. It is of private use, which separates in texts and queries alike."""


class QueryError(Invalid):
    """The query exceeds a limit; there is no other way for a query to be wrong."""


# --- Text ---

# Each of these characters is a token by itself: scripts without spaces between words, and pictographs.
_ALONE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u3100-\u312f"
    "\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\ua9e0-\ua9ff\uaa60-\uaa7f\uac00-\ud7ff"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
    "\u2600-\u27bf\u2b50\u2b55\U0001f000-\U0001f3fa\U0001f400-\U0001faff]"
)
# Marks that only vary how their neighbour looks: grapheme joiner, tatweel, variation selectors, skin tones.
_DROPPED = re.compile("[\u034f\u0640\u180b-\u180f\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef]")
# Letters that Unicode does not decompose, though people search them by their plain form.
_PLAIN = {"\u0131": "i", "ø": "o", "ł": "l", "đ": "d", "ħ": "h", "æ": "ae", "œ": "oe"}
# Sequences that are one character of a script cut by characters: Hangul from its letters, Kana with a voicing mark.
_SEQUENCE = re.compile(
    "[\u1100-\u1112\u3046-\u30fd\uff66-\uff9d][\u1161-\u1175\u3099\u309a\uff9e\uff9f][\u11a8-\u11c2]?"
)
_WIDE = re.compile("([^\x00-\x7f]+)")


def _letter(char: str) -> str:
    """A decomposed, casefolded character: itself, its plain form, nothing if dropped, or a space if it separates."""
    if char.isascii():
        return char if char.isalnum() else " "
    mark = unicodedata.combining(char)
    # Classes 7-9 and 84-132 are vowel signs and the like of single scripts, which are no accents.
    if mark == 1 or 10 <= mark <= 36 or mark >= 200 or _DROPPED.match(char):
        return ""
    category = unicodedata.category(char)
    if category in ("Cf", "Me"):
        return " " if char == "\u200b" else ""
    # Unassigned characters count as letters: most that are assigned later will be letters.
    return _PLAIN.get(char, char) if category[0] in "LMN" or category == "Cn" else " "


def _fold_char(char: str) -> str:
    """What one character becomes. ASCII keeps its case, also where an accent was: the humps are still to be found."""
    folded: list[str] = []
    for part in unicodedata.normalize("NFKC", char):
        if _ALONE.match(part) and unicodedata.category(part)[0] not in "PZ":
            folded.append(f" {part} ")
            continue
        for piece in unicodedata.normalize("NFKD", part):
            plain = piece if piece.isascii() else unicodedata.normalize("NFKD", piece.casefold())
            folded.extend(map(_letter, plain))
    return "".join(folded)


_CACHED = 1 << 16  # entries at which a table below starts anew, so that no text can fill the memory


class _Chars(dict[int, str]):
    """`_fold_char` as a table for `str.translate` that fills itself."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _CACHED:
            self.clear()
        folded = self[code] = _fold_char(chr(code))
        return folded


class _Runs(dict[str, str]):
    """What runs of non-ASCII characters become. Most are short and return often: an accented letter, a dash, a word."""

    def __missing__(self, run: str) -> str:
        folded = _SEQUENCE.sub(_compose, run).translate(_CHARS)
        if len(run) <= 16:
            if len(self) >= _CACHED:
                self.clear()
            self[run] = folded
        return folded


def _compose(sequence: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", sequence[0])


_CHARS = _Chars()
_RUNS = _Runs()

_MARK = b"\x01"  # stands at each hump for a while; the control characters of the text are spaces by then
_SEPARATE = bytes(b if b >= 0x80 or chr(b).isalnum() else 0x20 for b in range(256))
_FINISH = bytes(0x20 if b == _MARK[0] else b for b in bytes(range(256)).lower())
_HUMP = re.compile(rb"([A-Z](?:(?<=[a-z].)|(?<=[A-Z0-9].)(?=[a-z])))")
_MARKED = {bytes([b]): _MARK + bytes([b]) for b in range(ord("A"), ord("Z") + 1)}
_FROM_MARK = re.compile(rb"(\x01[^ ]*)")


def _marked(text: str) -> bytes:
    """The words of the text between spaces, folded but for ASCII case, with a mark at each hump.

    A split by a group returns what the group found as every second part; exchanging these is faster than `re.sub`.
    """
    if not text.isascii():
        parts: list[str] = _WIDE.split(text)
        parts[1::2] = map(_RUNS.__getitem__, parts[1::2])
        text = "".join(parts)
    pieces: list[bytes] = _HUMP.split(text.encode().translate(_SEPARATE))
    pieces[1::2] = map(_MARKED.__getitem__, pieces[1::2])
    return b"".join(pieces)


def _uncut(marked: bytes) -> Iterator[bytes]:
    """The words with marks, without them: each is the end of what is before its first mark and all up to a space."""
    parts: list[bytes] = _FROM_MARK.split(marked)
    for before, rest in zip(parts[::2], parts[1::2], strict=False):
        yield before[before.rfind(b" ") + 1 :] + rest.replace(_MARK, b"")


def _finish(marked: bytes) -> str:
    return b" ".join(marked.translate(_FINISH).split()).decode()


def normalise(text: str) -> str:
    """The token stream of a text: its words in order, then the uncut forms of its camelCase words.

    Every step over the whole text is a call into C; Python runs only for words with humps and new non-ASCII runs.
    """
    marked = _marked(text)
    whole = dict.fromkeys(word.lower() for word in _uncut(marked) if len(word) <= MAX_WHOLE)
    return f" {BREAK} ".join([_finish(marked), *(word.decode() for word in whole)])


# --- Query ---


@dataclass(frozen=True, slots=True)
class Phrase:
    """Tokens one after the other; with `prefix` the last one may go on."""

    tokens: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the children hits."""

    children: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All children (at least one) hit, and none of `without`. Exclusion exists only here: beside something to find."""

    children: tuple[Node, ...]
    without: tuple[Node, ...] = ()


Node: TypeAlias = Phrase | Or | And

_TERM = re.compile(r'(?P<not>(?<!\S)-(?![-\s]))?(?:"(?P<quoted>[^"]*)(?:"(?P<star>\**)|$)|(?P<word>[^\s"]+))')
_QUOTES = str.maketrans("“”„", '"""')


def _term(text: str, prefix: bool) -> Node | None:
    """One term: the phrase of its parts and, if it has humps, of its uncut words as the other way to hit."""
    marked = _marked(text)
    forms = dict.fromkeys((_finish(marked), _finish(marked.replace(_MARK, b""))))
    phrases = tuple(Phrase(tuple(form.split(" ")), prefix) for form in forms if form)
    return Or(phrases) if len(phrases) > 1 else next(iter(phrases), None)


def _read_term(match: re.Match[str]) -> Node | None:
    """A term as written, with its star."""
    quoted: str | None = match["quoted"]
    written: str = match["word"] if quoted is None else quoted
    bare = written if quoted is not None else written.rstrip("*")
    star = bool(match["star"]) or len(bare) < len(written)
    return _term(bare, star and bare != "" and not _CHARS[ord(bare[-1])].isspace())


def _tree(terms: list[tuple[bool, bool, Node]]) -> Node | None:
    """The tree of terms, each given with whether it is written OR and whether it is excluded."""
    groups: list[list[Node]] = []
    joins = False
    after_found = False
    for at, (is_or, excluded, node) in enumerate(terms):
        before_found = at + 1 < len(terms) and not terms[at + 1][1]
        if joins:
            groups[-1].append(node)
            joins = False
        elif is_or and after_found and before_found:
            joins = True
        elif not excluded:
            groups.append([node])
        after_found = not excluded
    without = tuple(node for _, excluded, node in terms if excluded)
    needed = tuple(group[0] if len(group) == 1 else Or(tuple(group)) for group in groups)
    if not needed:
        return None
    return needed[0] if len(needed) == 1 and not without else And(needed, without)


def parse(query: str) -> Node | None:
    """Read a query as the module describes. None means it matches nothing.

    Raises:
        QueryError: The query is longer than `MAX_QUERY_CHARS` or has more than `MAX_TERMS` terms. Nothing else raises.
    """
    if len(query) > MAX_QUERY_CHARS:
        raise QueryError(f"The query has {len(query)} characters; at most {MAX_QUERY_CHARS} are allowed.")
    found = [(match, _read_term(match)) for match in _TERM.finditer(query.translate(_QUOTES))]
    terms = [(match, node) for match, node in found if node is not None]
    if len(terms) > MAX_TERMS:
        raise QueryError(f"The query has {len(terms)} terms; at most {MAX_TERMS} are allowed.")
    return _tree([(match[0] == "OR", bool(match["not"]), node) for match, node in terms])


def to_fts5(node: Node) -> str:
    """The MATCH expression for a table of normalised text with `tokenize='ascii'`. Each token stands in quotes."""
    match node:
        case Phrase(tokens, prefix):
            return f'"{" ".join(tokens)}"' + (" *" if prefix else "")
        case Or(children):
            return f"({' OR '.join(map(to_fts5, children))})"
        case And(children, without):
            found = f"({' AND '.join(map(to_fts5, children))})"
            return f"({found} NOT ({' OR '.join(map(to_fts5, without))}))" if without else found


def _needle(phrase: Phrase) -> str:
    """What a stream between two spaces contains if the phrase hits."""
    return f" {' '.join(phrase.tokens)}{'' if phrase.prefix else ' '}"


def _hits(node: Node, padded: str) -> bool:
    match node:
        case Phrase():
            return _needle(node) in padded
        case Or(children):
            return any(_hits(child, padded) for child in children)
        case And(children, without):
            return all(_hits(child, padded) for child in children) and not any(_hits(no, padded) for no in without)


def matches(node: Node, normalised: str) -> bool:
    """Whether the query hits this token stream. This is the meaning which every backend's index has to agree with."""
    return _hits(node, f" {normalised} ")


def _phrases(node: Node) -> Iterator[Phrase]:
    """The phrases that may hit, in order; not those excluded."""
    match node:
        case Phrase():
            yield node
        case Or(children) | And(children):
            for child in children:
                yield from _phrases(child)


def score(node: Node, normalised: str) -> float:
    """How well a stream fits: hits per token, 0.0 without a match. A word repeated side by side may count once."""
    if not matches(node, normalised):
        return 0.0
    padded = f" {normalised} "
    return sum(padded.count(_needle(phrase)) for phrase in _phrases(node)) / padded.count(" ")


# --- Snippets ---

_LOCATED = 8  # the work is bounded: so many phrases are looked for, by so many of their tokens,
_SAMPLED = 200  # and so many hits of each are weighed to choose the place
_MIN_WIDTH = 20
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNIT = re.compile(f"{_SEQUENCE.pattern}|.", re.DOTALL)
_WORD = re.compile("[^ ]+")
_TEXT_HUMP = re.compile(_HUMP.pattern.decode())


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a text on one line, with the (start, end) offsets in it of the words that hit."""

    text: str
    highlights: tuple[tuple[int, int], ...]


class _Places(dict[int, str]):
    """Exactly one character for each, so that offsets stay: what it folds to, or the first of that."""

    def __missing__(self, code: int) -> str:
        return _CHARS[code].strip()[:1] or " "


_PLACES = _Places()


def _letters(token: str) -> str:
    return "".join(f"[{c}{c.upper()}]" if c.isascii() and c.isalpha() else re.escape(c) for c in token)


def _locator(phrase: Phrase) -> re.Pattern[str]:
    """Finds roughly, and fast, where a phrase hits in a text folded in place.

    The first character comes first because `re` skips to it quickly; only then the start of the word is checked. What
    may stand between tokens can't be part of one, so there is one way to match and no backtracking.
    """
    tokens = phrase.tokens[:_LOCATED]
    first, others = tokens[0], tokens[1:]
    start = "(?:(?<![a-zA-Z0-9].)|(?<=[A-Z]))" if first[0].isascii() else ""
    stop = "(?![a-z0-9])" if tokens[-1][-1].isascii() and not phrase.prefix else ""
    between = "[^0-9A-Za-z\x80-\U0010ffff]{0,8}"
    body = between.join([_letters(first[1:]), *map(_letters, others)])
    return re.compile(_letters(first[0]) + start + body + stop)


def _densest(original: str, phrases: list[Phrase], span: int) -> int:
    """Where the piece of `span` characters with the most different and then the most hits begins; 0 without any.

    A hit that only folding reveals (a ligature, a decomposed accent) may be missed here, but will be highlighted.
    """
    parts: list[str] = _WIDE.split(original)
    parts[1::2] = [run.translate(_PLACES) for run in parts[1::2]]
    folded = "".join(parts)
    hits = sorted(
        (hit.start(), number)
        for number, phrase in enumerate(phrases[:_LOCATED])
        for hit in islice(_locator(phrase).finditer(folded), _SAMPLED)
    )
    inside: Counter[int] = Counter()
    best, place, first = (0, 0), 0, 0
    for last, (at, number) in enumerate(hits):
        inside[number] += 1
        while at - hits[first][0] > span:
            inside[hits[first][1]] -= 1
            first += 1
        rank = (len(+inside), last - first)
        if rank > best:
            best, place = rank, hits[first][0]
    return place


def _cut(original: str, at: int, width: int) -> str:
    """The piece of the text around an offset, a third of it before, on one line and ended at words where possible."""
    room = width - 2
    lead = max(room // 3, room - (len(original) - at))
    # Runs of blanks become one space; four times the room leaves enough text behind most indentation.
    begin, end = max(0, at - 4 * lead), at + 4 * room
    left, right = (_BLANK.sub(" ", part) for part in (original[begin:at], original[at:end]))
    more_left, more_right = begin > 0 or len(left) > lead, False
    left = left[-lead:]
    if more_left:
        left = left[left.find(" ") + 1 :]
    if end < len(original) or len(right) > room - len(left):
        more_right, right = True, right[: room - len(left)]
        space = right.rfind(" ")
        right = right[:space] if space > len(right) // 2 else right
    piece = _SURROGATE.sub("\ufffd", (left + right).strip())
    return f"{'…' if more_left else ''}{piece}{'…' if more_right else ''}"


def _highlights(text: str, phrases: list[Phrase]) -> tuple[tuple[int, int], ...]:
    """The words of a short text that hit, exactly as `normalise` makes tokens of them; touching ranges are one."""
    folded = ""
    spans: list[tuple[int, int]] = []
    for unit in _UNIT.finditer(text):
        made = _RUNS[unit[0]]
        if not made and spans:
            spans[-1] = (spans[-1][0], unit.end())
        spans += [unit.span()] * len(made)
        folded += made
    words = [word.span() for word in _WORD.finditer(folded)]
    cuts = [[a, *(hump.start() for hump in _TEXT_HUMP.finditer(folded, a, b)), b] for a, b in words]
    parts = [pair for cut in cuts for pair in pairwise(cut)]
    folded = folded.encode().lower().decode()
    found: set[tuple[int, int]] = set()
    for pairs in (parts, words):
        tokens = [folded[a:b] for a, b in pairs]
        for phrase in phrases:
            for at in range(len(tokens) - len(phrase.tokens) + 1):
                here = pairs[at : at + len(phrase.tokens)]
                if f" {' '.join(tokens[at : at + len(here)])} ".startswith(_needle(phrase)):
                    found.update((spans[a][0], spans[b - 1][1]) for a, b in here)
    merged: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def snippet(original: str, node: Node | None, width: int = 160) -> Snippet:
    """The piece of the original text, at most `width` (and at least 20) characters, where the query hits densest.

    Blanks and control characters become single spaces, lone surrogates U+FFFD; an ellipsis stands where text was cut.
    Without a hit that can be located, the piece is the beginning.
    """
    width = max(width, _MIN_WIDTH)
    phrases = list(_phrases(node)) if node is not None else []
    text = _cut(original, _densest(original, phrases, width // 2), width)
    return Snippet(text, _highlights(text, phrases))
