"""The examples in each command's help: the command takes all of them as they stand there."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest

from holdfast.cli.app import holdfast
from shell import commands


def calls(line: str) -> Iterator[list[str]]:
    """The words of each call of `holdfast` in a line for a shell, without what the shell itself takes."""
    if substituted := re.search(r'"\$\((.*)\)"', line):
        line = substituted[1]
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    for piped, words in itertools.groupby(lexer, "|".__eq__):
        command = [] if piped else list(itertools.takewhile(lambda word: word not in ("<", ">", ">>"), words))
        if command[:1] == ["holdfast"]:
            yield command[1:]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], list[tuple[str, ...]]]:
    """Parses a command line as click does before it runs anything; the commands that would have run."""
    reached: list[tuple[str, ...]] = []

    def instead_of(path: tuple[str, ...]) -> Callable[..., None]:
        def reach(**given: Any) -> None:
            reached.append(path)

        return reach

    for path, command in commands().items():
        if command.callback is not None:
            monkeypatch.setattr(command, "callback", instead_of(path))

    def parse(args: list[str]) -> list[tuple[str, ...]]:
        reached.clear()
        holdfast.main(args, "holdfast", standalone_mode=False)
        return list(reached)

    return parse


def test_every_example_is_a_call_that_its_command_takes(parsed: Callable[[list[str]], list[tuple[str, ...]]]) -> None:
    tried = 0
    for path, command in commands().items():
        for line in command.examples.strip().splitlines():  # type: ignore[attr-defined]  # ours have them
            found = list(calls(line))
            assert found, f"{line.strip()!r} calls no holdfast"
            for args in found:
                try:
                    ran = parsed(args)
                except click.ClickException as error:
                    pytest.fail(f"{line.strip()!r} in the help of {path}: {error.format_message()}")
                # A group has examples of the commands in it; `--version` answers by itself.
                assert ran[-1][: len(path)] == path if args != ["--version"] else ran == [], line
                tried += 1
    assert tried > 120


@pytest.mark.parametrize(
    "line",
    [
        "holdfast session list --no-such-option",
        "make 2>&1 | holdfast artifact put @last build.log - --tools make",
        "holdfast --json session lst | jq .",
        "holdfast session show support-42 another",
        "holdfast session list --limit many > x.json",
        "holdfast prune plan --max-age 90x  # too old",
        'eval "$(holdfast completion perl)"',
    ],
)
def test_an_example_that_is_wrong_is_found(parsed: Callable[[list[str]], list[tuple[str, ...]]], line: str) -> None:
    (args,) = calls(line)
    with pytest.raises(click.UsageError):
        parsed(args)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("holdfast append s 'a | b' --create  # add", [["append", "s", "a | b", "--create"]]),
        ("make 2>&1 | holdfast artifact put s log - | less", [["artifact", "put", "s", "log", "-"]]),
        ("holdfast export s > s.jsonl", [["export", "s"]]),
        ("sum < x | holdfast session compact s - --upto 4", [["session", "compact", "s", "-", "--upto", "4"]]),
        ('eval "$(holdfast completion zsh)"   # in ~/.zshrc', [["completion", "zsh"]]),
        ("holdfast export a | holdfast import -", [["export", "a"], ["import", "-"]]),
        ("echo holdfast", []),
    ],
)
def test_the_calls_in_a_line_are_those_of_a_shell(line: str, expected: list[list[str]]) -> None:
    assert list(calls(line)) == expected
