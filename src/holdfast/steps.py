"""A step under way: what a tool or program does between the beginning and the end of a `with` block."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from holdfast.codec import encode_json
from holdfast.errors import HoldfastError
from holdfast.model import Large, Step
from holdfast.redact import told

if TYPE_CHECKING:
    from holdfast.turns import Turn

SUMMARY = 500
"""Characters of an output's summary."""
_ENDING = 150
"""Of these, how many are the output's end, where programs say how it went."""


class OpenStep:
    """A step that is under way; set what came of it: `output`, `exit_code`, `is_error`, `error`, `artifacts`."""

    def __init__(self, turn: Turn, name: str, arguments: Any, call_id: str | None) -> None:
        self._turn = turn
        self._begun = time.monotonic_ns()
        self.name = name
        self.arguments = arguments
        self.call_id = call_id
        self.output: Any = None
        self.exit_code: int | None = None
        self.is_error = False
        self.error: str | None = None
        self.artifacts: list[str] = []
        self.metadata: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def start(self) -> Self:
        """Count the duration from now on."""
        self._begun = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._turn.append(self.done(error))
        except HoldfastError as failed:
            if error is None:
                raise
            # What the block raised says more; that it was not recorded must not be lost either.
            error.add_note(f"the step was not recorded: {failed}")

    def done(self, error: BaseException | None) -> Step:
        """What happened, as the event to store. An exit code other than 0 is an error."""
        output = self.output
        if output is not None and not isinstance(output, str | Large):
            output = encode_json(output).decode()
        return Step(
            name=self.name,
            call_id=self.call_id,
            arguments=self.arguments,
            output=output,
            summary=summary_of(output),
            duration=(time.monotonic_ns() - self._begun) // 1000,
            is_error=self.is_error or error is not None or self.error is not None or bool(self.exit_code),
            error=self.error if error is None else told(error),
            exit_code=self.exit_code,
            artifacts=tuple(self.artifacts),
            metadata=self.metadata,
        )


def summary_of(output: str | Large | None) -> str | None:
    """The beginning and the end of an output of more than 500 characters, None of a shorter one, which is its own."""
    if output is None:
        return None
    if isinstance(output, Large):
        return output.preview[:SUMMARY] or None
    if len(output) <= SUMMARY:
        return None
    gap = f"\n… {len(output) - SUMMARY:,} characters …\n"
    return output[: SUMMARY - _ENDING - len(gap)] + gap + output[-_ENDING:]
