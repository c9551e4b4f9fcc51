"""Before something that can't be undone: a person is asked, a script has to say `--yes`."""

from __future__ import annotations

import sys
from typing import Any

import click

from holdfast.cli.app import FAILURE, App
from holdfast.formats.words import safe_line

YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
NAMED = 5
"""Things that a question names; it counts the others."""


def noted(dry_run: bool) -> dict[str, Any]:
    """What JSON says beside what would be done, if it was not."""
    return {"dry_run": True} if dry_run else {}


def sure(app: App, question: str, *, yes: bool, what: str, done: str) -> None:
    """Go on if `--yes` was given or a person says so.

    Args:
        app: Who talks.
        question: What is asked on a terminal.
        yes: Whether `--yes` was given.
        what: What is about to happen, for those who can't be asked: `deleting can't be undone`.
        done: What was not done after a no: `deleted`.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what}, and nobody can be asked here; add --yes")
    if not click.confirm(safe_line(question), err=True):
        app.say(f"nothing was {done}")
        raise click.exceptions.Exit(FAILURE)


def some(names: list[str]) -> str:
    """Names for a question, the first few of many."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")
