"""What a search means: token streams, queries, snippets, and that SQLite's FTS5 sees the same."""

import itertools
import sqlite3
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import example, given, settings, strategies as st

from holdfast.errors import Invalid
from holdfast.search import (
    BREAK,
    MAX_QUERY_CHARS,
    MAX_TERMS,
    MAX_WHOLE,
    And,
    Or,
    Phrase,
    QueryError,
    Snippet,
    matches,
    normalise,
    parse,
    score,
    snippet,
    to_fts5,
)


def stream(text: str) -> str:
    """The stream without the uncut forms."""
    return normalise(text).split(BREAK)[0].strip()


def hits(query: str, text: str) -> bool:
    node = parse(query)
    return node is not None and matches(node, normalise(text))


# --- Text ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \t\n ", ""),
        ("Hello,  World!\n", "hello world"),
        ("snake_case kebab-case dotted.path", "snake case kebab case dotted path"),
        ("getUserName", "get user name"),
        ("HTTPServer", "http server"),
        ("parseHTTPRequest2Json", "parse http request2 json"),
        ("V2 utf8 3.14 sha256 0x1F", "v2 utf8 3 14 sha256 0x1f"),
        ("C++", "c"),
        ("don't don\u2019t", "don t don t"),
        ("Résumé re\u0301sume\u0301", "resume resume"),
        ("Straße STRASSE", "strasse strasse"),
        ("\u0130stanbul \u0131sparta", "istanbul isparta"),
        ("Łódź smørrebrød Encyclopædia", "lodz smorrebrod encyclopaedia"),
        ("\ufb01le \uff26\uff49\uff4c\uff45 \u2460", "file file 1"),
        ("getÉtat", "get etat"),
        ("ΣΊΣΥΦΟΣ σίσυφος", "σισυφοσ σισυφοσ"),
        ("Ёлка", "елка"),
        ("\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd", "\u05e9\u05dc\u05d5\u05dd"),
        ("日本語text", "日 本 語 text"),
        ("ガ カ\u3099 \uff76\uff9e", "ガ ガ ガ"),
        ("학교", "학 교"),
        (unicodedata.normalize("NFD", "학교"), "학 교"),
        ("ไทย", "ไ ท ย"),
        ("done\U0001f44d\U0001f3fd", "done \U0001f44d"),
        ("a\u2014b\u2026\u201cc\u201d \u20ac5 ──┐", "a b c 5"),
        ("co\u00adop\u200bx \ufeffbom", "coop x bom"),
        ("a\x00b\x01c\x7fd", "a b c d"),
        ("a\ud800b\udfff", "a b"),
        (f"a{BREAK}b", "a b"),
    ],
)
def test_stream(text: str, expected: str) -> None:
    assert stream(text) == expected


def test_uncut_forms_follow_once_each_behind_a_break() -> None:
    assert normalise("getUser, fooBar getUser") == f"get user foo bar get user {BREAK} getuser {BREAK} foobar"


def test_encoded_data_has_no_uncut_form() -> None:
    assert normalise("aB" * (MAX_WHOLE // 2)).endswith(f"{BREAK} {'ab' * (MAX_WHOLE // 2)}")
    assert BREAK not in normalise("aB" * (MAX_WHOLE // 2) + "c")


def test_every_character_normalises_to_tokens_between_single_spaces() -> None:
    # All of the scripts in use, and a sample of the rest, which is mostly Han and unassigned.
    for code in itertools.chain(range(0x20000), range(0x20000, sys.maxunicode + 1, 97)):
        made = stream(chr(code))
        assert "  " not in made
        assert all(c == " " or "a" <= c <= "z" or "0" <= c <= "9" or c > "\x7f" for c in made), hex(code)
        made.encode()


def test_long_runs_of_marks_are_no_burden() -> None:
    assert normalise("a" + "\u0301\u0316" * 200_000) == "a"


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("resume", "my Résumé", True),
        ("résumé", "my resume", True),
        ("getusername", "x.getUserName()", True),
        ("getUserName", "getusername", True),
        ("user", "getUserName", True),
        ('"get user name"', "getUserName", True),
        ("getUserName", "get_user_name", True),
        ("getusername", "get_user_name", False),
        ("getUs*", "getUserName", True),
        ("getus*", "getUserName", True),
        ("foo.getUserName", "foo.getusername", True),
        ("foo_bar.baz", "FooBar/baz", True),
        ("a/b", "a x b", False),
        ("本語", "日本語です", True),
        ("語本", "日本語です", False),
        ("학교", "학교에서", True),
        ("\U0001f44d", "ok\U0001f44d\U0001f3fd!", True),
        ('"name getusername"', "getUserName", False),
        ('"getuser foobar"', "getUser fooBar", False),
        ("hello world", "world, hello", True),
        ('"hello world"', "world, hello", False),
        ("hel", "hello", False),
        ("hel*", "hello", True),
        ('"hello wor"*', "hello world", True),
        ("foo -bar", "foo bar", False),
        ("foo -bar", "foo baz", True),
        ('foo -"bar baz"', "foo baz bar", True),
        ("foo --bar", "foo bar", True),
        ("a b OR c", "a c", True),
        ("a b OR c", "c b", False),
    ],
)
def test_query_hits(query: str, text: str, expected: bool) -> None:
    assert hits(query, text) is expected


# --- Query ---


def phrase(words: str, prefix: bool = False) -> Phrase:
    return Phrase(tuple(words.split()), prefix)


A, B, C, OR = phrase("a"), phrase("b"), phrase("c"), phrase("or")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a", A),
        ("a b", And((A, B))),
        ('"a b"', phrase("a b")),
        ('"a b', phrase("a b")),
        ("\u201ca b\u201d", phrase("a b")),
        ('a"b"c', And((A, B, C))),
        ("a*", phrase("a", True)),
        ("a**", phrase("a", True)),
        ('"a b"*', phrase("a b", True)),
        ('"a b*"', phrase("a b")),
        ("*a", A),
        ("a*b", phrase("a b")),
        ("a_*", A),
        ("e\u0301*", phrase("e", True)),
        ("a -b", And((A,), (B,))),
        ("-b a", And((A,), (B,))),
        ('a -"b c" -c*', And((A,), (phrase("b c"), phrase("c", True)))),
        ("a--b a-b", And((phrase("a b"), phrase("a b")))),
        ("a - b", And((A, B))),
        ("--a", A),
        ("a OR b", Or((A, B))),
        ("a OR b OR c", Or((A, B, C))),
        ("a b OR c", And((A, Or((B, C))))),
        ("a OR (!) b", Or((A, B))),
        ("OR", OR),
        ("OR OR", And((OR, OR))),
        ("OR OR OR", Or((OR, OR))),
        ("a OR", And((A, OR))),
        ("OR a", And((OR, A))),
        ("a OR -b", And((A, OR), (B,))),
        ("-b OR a", And((OR, A), (B,))),
        ('a "OR" b', And((A, OR, B))),
        ("a or b", And((A, OR, B))),
        ("a AND b", And((A, phrase("and"), B))),
        ("NOT a", And((phrase("not"), A))),
        ("NEAR(", phrase("near")),
        ("NEAR(a b, 5)", And((phrase("near a"), B, phrase("5")))),
        ("col:x", phrase("col x")),
        ("^a {b} 'c'", And((A, B, C))),
        ("getUser*", Or((phrase("get user", True), phrase("getuser", True)))),
        ("-getUser a", And((A,), (Or((phrase("get user"), phrase("getuser"))),))),
        ("a\x00b", phrase("a b")),
        ("a\ud800", A),
    ],
)
def test_query_tree(query: str, expected: object) -> None:
    assert parse(query) == expected


@pytest.mark.parametrize(
    "query", ["", " ", '"', '""', '"" ""', "*", "-", "--", "-a", '-"a" -b', "-*", '-"', "()", "…", "\ud800"]
)
def test_query_that_matches_nothing(query: str) -> None:
    assert parse(query) is None


def test_query_limits_have_their_own_error() -> None:
    assert parse("x" * MAX_QUERY_CHARS) == phrase("x" * MAX_QUERY_CHARS)
    assert parse("x " * MAX_TERMS) == And((phrase("x"),) * MAX_TERMS)
    with pytest.raises(QueryError, match="1001 characters"):
        parse("x" * (MAX_QUERY_CHARS + 1))
    with pytest.raises(QueryError, match="65 terms"):
        parse("x " * (MAX_TERMS + 1))
    with pytest.raises(QueryError):
        parse('"' * 10_000_000)
    assert issubclass(QueryError, Invalid)


def test_score_is_positive_for_hits_only_and_grows_with_density() -> None:
    node = parse("foo -bar")
    assert node is not None
    assert score(node, "foo bar") == score(node, "") == 0.0
    assert score(node, "foo x y z") < score(node, "foo x") < score(node, "foo")


# --- The same in FTS5 ---


@pytest.fixture(scope="module")
def fts() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            db.execute("CREATE VIRTUAL TABLE t USING fts5(body, tokenize='ascii')")
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no FTS5")
        yield db


NAMES = "a b ab c getUser GetUser getuser user HTTPServer http server x1 v2Beta 3.14 foo_bar fooBar Foo.Bar"
SCRIPTS = "é É e\u0301 ß SS \u0130 i \u0131 日 本 日本 カ\u3099 ガ 학교 ᄒ ᅡ ไทย हि 👍 👍🏽 \ufb01 fi ─ € Ж ж \u0345"
SIGNS = "\" ' * - -- OR AND NOT NEAR( ) : ^ + _ . , { }"
BLANKS = ["\x00", "\ud800", "\u00ad", "\u200b", "\u3000", BREAK, "\n", " ", " ", " ", " "]
PIECES = [*NAMES.split(), *SCRIPTS.split(), *SIGNS.split(), *BLANKS]
scraps = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
spaced = st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)
texts = st.one_of(scraps, spaced, st.text(max_size=30))


def with_parts_of(written: list[str]) -> st.SearchStrategy[str]:
    """Queries that are likely to hit: pieces of the texts themselves, with operators."""
    joined = "  ".join(written)
    cut = st.tuples(st.integers(0, len(joined)), st.integers(1, 12)).map(lambda at: joined[at[0] : at[0] + at[1]])
    term = st.tuples(st.sampled_from(["", "", "-", '"']), cut, st.sampled_from(["", "", "*", '"', '"*'])).map("".join)
    return st.one_of(scraps, spaced, st.lists(term, min_size=1, max_size=4).map(" ".join))


@settings(max_examples=400, deadline=None)
@given(st.lists(texts, min_size=1, max_size=6).flatmap(lambda t: st.tuples(st.just(t), with_parts_of(t))))
@example((["getUser fooBar", "x"], '"getuser foobar"'))
@example((["a b", "b a"], 'a -"a b" OR b'))
def test_fts5_hits_the_same(fts: sqlite3.Connection, given: tuple[list[str], str]) -> None:
    written, query = given
    node = parse(query)
    if node is None:
        return
    streams = [normalise(text) for text in written]
    fts.execute("DELETE FROM t")
    fts.executemany("INSERT INTO t(rowid, body) VALUES (?, ?)", enumerate(streams))
    found = {row for (row,) in fts.execute("SELECT rowid FROM t WHERE t MATCH ?", (to_fts5(node),))}
    assert found == {at for at, made in enumerate(streams) if matches(node, made)}
    assert found == {at for at, made in enumerate(streams) if score(node, made) > 0}


def test_fts5_takes_the_largest_queries(fts: sqlite3.Connection) -> None:
    fts.execute("DELETE FROM t")
    fts.execute("INSERT INTO t(body) VALUES (?)", (normalise("aB " * 10),))
    letters = ["".join(pair) for pair in itertools.product("abcdefgh", repeat=2)]
    for query, expected in [
        (" ".join(f"aB -x{two}" for two in letters[: MAX_TERMS // 2]), 1),
        (" OR ".join(f"{two}Q*" for two in letters[: MAX_TERMS // 2]), 0),
        ("\ufdfa" * MAX_QUERY_CHARS, 0),
        ("日" * MAX_QUERY_CHARS, 0),
        ("aB." * (MAX_QUERY_CHARS // 3), 0),
    ]:
        node = parse(query)
        assert node is not None
        assert len(fts.execute("SELECT rowid FROM t WHERE t MATCH ?", (to_fts5(node),)).fetchall()) == expected


@settings(max_examples=200, deadline=None)
@given(texts)
def test_a_text_is_found_by_itself(text: str) -> None:
    quoted = '"' + text[:300].replace('"', " ") + '"'
    assert parse(quoted) is None or hits(quoted, text[:300].replace('"', " "))


# --- Snippets ---


def marked(found: Snippet) -> str:
    """The snippet with its highlights in brackets."""
    text = found.text
    for start, end in reversed(found.highlights):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("fox", "The quick\n\n   brown fox", "The quick brown [fox]"),
        ("resume", "Your Résumé, please", "Your [Résumé], please"),
        ("resume", "Your re\u0301sume\u0301, please", "Your [re\u0301sume\u0301], please"),
        ("strasse", "Lange Straße", "Lange [Straße]"),
        ("user", "x = getUserName()", "x = get[User]Name()"),
        ("getusername", "x = getUserName()", "x = [getUserName]()"),
        ('"user name"', "x = getUserName() or user_name", "x = get[UserName]() or [user]_[name]"),
        ("conf* -x", "configure the conference", "[configure] the [conference]"),
        ("本語", "日本語です", "日[本語]です"),
        ("학교", unicodedata.normalize("NFD", "그 학교에서"), unicodedata.normalize("NFD", "그 [학교]에서")),
        ("a -b", "a b", "[a] b"),
        ("a", "a\x1b[0m\x00\ud800", "[a] [0m \ufffd"),
        ("nothing", "here", "here"),
    ],
)
def test_snippet(query: str, text: str, expected: str) -> None:
    assert marked(snippet(text, parse(query))) == expected


def test_snippet_is_cut_at_words_around_the_densest_place() -> None:
    text = "word " * 50 + "alpha " + "word " * 50 + "alpha beta " + "word " * 50
    found = marked(snippet(text, parse("alpha beta"), 60))
    assert found.startswith("…word ")
    assert "[alpha] [beta]" in found
    assert found.endswith(" word…")


def test_snippet_finds_its_place_in_folded_and_deep_text() -> None:
    assert "[Öl]" in marked(snippet("ж" * 5000 + " Öl", parse("ol")))
    assert "[Needle]" in marked(snippet("hay " * 500_000 + "getNeedle " + "hay " * 10, parse("needle*")))


def test_snippet_survives_repetition() -> None:
    for piece, query in [("👍", "👍" * 500 + "x"), ("a ", '"' + "a " * 300 + 'b"'), ("a", "a" * 900), (" ", '"a b"')]:
        assert snippet(piece * 100_000, parse(query)).text


@settings(max_examples=300, deadline=None)
@given(
    st.lists(texts, min_size=1, max_size=30).flatmap(lambda t: st.tuples(st.just(" ".join(t)), with_parts_of(t))),
    st.integers(0, 80),
)
def test_snippet_bounds(given: tuple[str, str], width: int) -> None:
    text, query = given
    found = snippet(text, parse(query), width)
    assert len(found.text) <= max(width, 20)
    assert "\n" not in found.text
    found.text.encode()
    ends = [0, *itertools.chain.from_iterable(found.highlights), len(found.text)]
    assert ends == sorted(ends)
    assert all(start < end for start, end in found.highlights)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=3).flatmap(lambda t: st.tuples(st.just(" ".join(t)), with_parts_of(t))))
def test_a_hit_in_a_short_text_is_highlighted(given: tuple[str, str]) -> None:
    text, query = given
    node = parse(query)
    if node is not None and matches(node, normalise(text)):
        assert snippet(text, node, len(text) + 20).highlights
