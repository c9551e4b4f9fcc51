"""A step under way: what a tool or program does between the beginning and the end of a `with` block."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from holdfast.codec import PREVIEW, encode_json, is_large, preview_of
from holdfast.errors import HoldfastError, Invalid
from holdfast.events.receipts import Receipt
from holdfast.events.redact import masked, told
from holdfast.large import LargeValues
from holdfast.model import Artifact, Large, Step

if TYPE_CHECKING:
    from holdfast.turns.turns import Turn

SUMMARY = 500
"""Characters of an output's summary."""
_ENDING = 150
"""Of these, how many are the output's end, where programs say how it went."""


KINDS = ("tool_execution", "program_execution")
"""What a step can be the execution of."""


class OpenStep:
    """A step that is under way; set what came of it: `output`, `exit_code`, `is_error`, `error`, `artifacts`.

    An output of more than 64 KiB is kept as an artifact, too, whose URI its `artifacts` begin with.
    """

    def __init__(self, turn: Turn, name: str, arguments: Any, call_id: str | None, kind: str) -> None:
        if kind not in KINDS:
            raise Invalid(f"kind {kind!r} is not one of {', '.join(KINDS)}", kind=kind)
        self._turn = turn
        self._begun = time.monotonic_ns()
        self._duration = 0
        self.kind = kind
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
        self.stop()
        try:
            self.store(error)
        except HoldfastError as failed:
            if error is None:
                raise
            # What the block raised says more; that it was not recorded must not be lost either.
            error.add_note(f"the step was not recorded: {failed}")

    def stop(self) -> None:
        """The duration ends now."""
        self._duration = (time.monotonic_ns() - self._begun) // 1000

    def store(self, error: BaseException | None) -> Receipt:
        """Append what happened, with the artifact that keeps a large output, in one commit."""
        large = self._turn.large
        with large.hold:
            events: list[Artifact | Step] = [self.done(error)]
            if self.is_large():
                events = self._kept(events[0], large)
            return self._turn.append(*events)

    def is_large(self) -> bool:
        """Whether the output becomes an artifact, which writes blobs."""
        output = self.output
        return isinstance(output, Large) or (output is not None and is_large(_as_text(output)))

    def done(self, error: BaseException | None) -> Step:
        """What happened, as the event to store. An exit code other than 0 is an error."""
        output = self.output
        if output is not None and not isinstance(output, Large):
            output = _as_text(masked(output, self._turn.secrets))
        return Step(
            name=self.name,
            call_id=self.call_id,
            arguments=self.arguments,
            output=output,
            summary=summary_of(output),
            duration=self._duration,
            is_error=self.is_error or error is not None or self.error is not None or bool(self.exit_code),
            error=self.error if error is None else told(error),
            exit_code=self.exit_code,
            artifacts=tuple(self.artifacts),
            kind=self.kind,
            output_bytes=None if output is None or isinstance(output, Large) else len(_encoded(output)),
            metadata=self.metadata,
        )

    def _kept(self, step: Any, large: LargeValues) -> list[Artifact | Step]:
        """The step and the artifact of its output, whose bytes are stored now, once for both."""
        output = step.output
        if isinstance(output, Large):
            with output.open() as stream:
                ref = large.put(stream, output.form)
            preview = output.preview or preview_of(ref, large)
        else:
            ref, preview = large.put(_encoded(output), "text"), output[:PREVIEW]
        summary = step.summary or preview[:SUMMARY] or None
        from holdfast.artifacts.artifacts import artifact_of, uri_of

        uri = uri_of("tool-output", self.name, ref.sha256)
        name = f"tool-output:{self.name[:200]}:{ref.sha256[:16]}"
        shown = len(_encoded(summary or ""))
        made = artifact_of(name, ref, tool=self.name, uri=uri, shown=shown, media_type=MEDIA_TYPES.get(ref.form))
        known = step.artifacts if uri in step.artifacts else (uri, *step.artifacts)
        told = msgspec.structs.replace(
            step, output=preview, large={"output": ref}, summary=summary, artifacts=known, output_bytes=ref.size
        )
        return [made, told]


MEDIA_TYPES = {"text": "text/plain; charset=utf-8", "json": "application/json"}


def _as_text(output: Any) -> str:
    return output if isinstance(output, str) else encode_json(output).decode()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


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
