"""The command `holdfast`: what a store can do, for a shell.

Starting is quick: `--version` needs neither click nor the store, and each command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit code."""
    given = list(sys.argv[1:] if args is None else args)
    if given in (["--version"], ["-V"]):
        from holdfast import __version__

        sys.stdout.write(f"holdfast {__version__}\n")
        sys.exit(0)
    try:
        from holdfast.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run(given))
