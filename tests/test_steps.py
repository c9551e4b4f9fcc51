"""Steps of a turn, and that no secret of an error gets into the log."""

from __future__ import annotations

import io

import pytest

import holdfast
from holdfast import Invalid, Large, LeaseLost, Step, Store
from holdfast.events.redact import LIMIT, redacted, told
from holdfast.events.steps import SUMMARY


def recorded(store: Store) -> Step:
    payload = next(store.session("s").events(types="step", last=1)).payload
    assert isinstance(payload, Step)
    return payload


def test_a_step_records_what_happened(store: Store) -> None:
    with store.session("s").turn() as turn, turn.step("build", {"target": "all"}, call_id="c1") as step:
        step.output, step.exit_code = "done", 0
        step.artifacts.append("a3s://x")
        step.metadata = {"cached": False}
    found = recorded(store)
    assert (found.name, found.arguments, found.call_id) == ("build", {"target": "all"}, "c1")
    assert (found.output, found.summary, found.exit_code, found.is_error) == ("done", None, 0, False)
    assert (found.artifacts, found.metadata, found.error) == (("a3s://x",), {"cached": False}, None)
    assert found.duration is not None
    assert found.duration >= 0
    assert store.session("s").info().counts.steps == 1


def test_an_exit_code_other_than_0_is_an_error(store: Store) -> None:
    with store.session("s").turn() as turn, turn.step("build") as step:
        step.exit_code = 2
    assert recorded(store).is_error
    assert store.session("s").info().counts.errors == 1


def test_an_exception_is_recorded_without_secrets_and_goes_on(store: Store) -> None:
    with store.session("s").turn() as turn:
        with pytest.raises(OSError, match="hunter2"), turn.step("fetch"):
            raise OSError("can't reach postgres://app:hunter2@db/x")
        turn.append(holdfast.note("the turn goes on"))
    found = recorded(store)
    assert (found.is_error, found.error) == (True, "OSError: can't reach postgres://app:***@db/x")
    assert store.session("s").info().state == "idle"


def test_a_long_output_has_a_summary_and_stays_whole(store: Store) -> None:
    output = "".join(f"line {n}\n" for n in range(50_000))
    with store.session("s").turn() as turn, turn.step("build") as step:
        step.output = output
    found = recorded(store)
    assert isinstance(found.output, Large)
    assert str(found.output) == output
    assert found.summary is not None
    assert len(found.summary) == SUMMARY
    assert found.summary.startswith("line 0\n")
    assert found.summary.endswith("line 49999\n")


def test_an_output_may_be_a_stream_or_any_json_value(store: Store) -> None:
    with store.session("s").turn() as turn:
        with turn.step("build") as step:
            step.output = Large.from_stream(io.BytesIO(b"x" * 3_000_000))
        assert isinstance(recorded(store).output, Large)
        with turn.step("lookup") as step:
            step.output = {"rows": [1, 2]}
        assert recorded(store).output == '{"rows":[1,2]}'
        with pytest.raises(Invalid), turn.step("lookup") as step:
            step.output = {1.5j}


def test_a_step_of_a_turn_that_is_over_is_not_stored(store: Store) -> None:
    with store.session("s").turn() as turn:
        pass
    with pytest.raises(LeaseLost), turn.step("late"):
        pass
    with pytest.raises(KeyError) as raised, turn.step("late"):
        raise KeyError("x")
    assert "the step was not recorded" in raised.value.__notes__[0]
    assert store.session("s").info().counts.steps == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("api_key=abc123 rest", "api_key=*** rest"),
        ('{"apiKey": "abc123", "model": "m"}', '{"apiKey": "***", "model": "m"}'),
        ("OPENAI_API_KEY='abc123'", "OPENAI_API_KEY='***'"),
        ("password: hunter2;", "password: ***;"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
        ("authorization basic dXNlcjpwYXNz", "authorization basic ***"),
        ("with key sk-proj-abcdefghijklmnop", "with key ***"),
        ("ghp_abcdefghijklmnop1234 was refused", "*** was refused"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        ("redis://:hunter2@host:6379/0", "redis://:***@host:6379/0"),
        ("https://u:p@host and https://v:q@host", "https://u:***@host and https://v:***@host"),
        ("at http://host:8080/path, 3 tokens used", "at http://host:8080/path, 3 tokens used"),
        ("the bearer of bad news", "the bearer of bad news"),
        ("no such key: order", "no such key: order"),
    ],
)
def test_what_looks_like_a_secret_is_not_kept(text: str, kept: str) -> None:
    assert redacted(text) == kept
    assert redacted(kept) == kept


def test_a_long_message_is_cut_and_an_error_that_can_not_be_told_is_named() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert len(redacted("x" * 10_000_000)) == LIMIT
    assert told(KeyError()) == "KeyError"
    assert "ZeroDivisionError" in told(Odd())


def test_a_large_output_is_an_artifact_too(store: Store) -> None:
    session = store.session("s")
    output = "ü" * 50_000
    with session.turn() as turn, turn.step("build", kind="program_execution") as step:
        step.output, step.metadata = output, {"b": 1, "a": 2}
        step.artifacts.append("file:///tmp/x")
    found = recorded(store)
    (kept,) = session.artifacts.list()
    assert found.artifacts == (kept.uri, "file:///tmp/x")
    assert kept.uri == f"a3s://tool-output/build/{kept.sha256[:16]}"
    assert (found.kind, found.output_bytes, found.metadata_keys) == ("program_execution", 100_000, ("a", "b"))
    assert (kept.tool, kept.size, kept.media_type) == ("build", 100_000, "text/plain; charset=utf-8")
    assert found.summary is not None
    assert kept.shown == len(found.summary.encode())
    assert session.artifacts.get(kept.uri or "") == output.encode()
    assert str(found.output) == output
    assert len(store.backend.blobs.scan()) == 1
    assert [event.type for event in session.events()] == ["state", "artifact", "step", "state"]
    assert store.check().ok


@pytest.mark.parametrize(
    ("output", "size"), [(None, None), ("", 0), ("ü", 2), ({"a": 1}, 7), ("\ud800", 3), ("x" * 65_536, 65_536)]
)
def test_the_size_of_an_output_is_recorded(store: Store, output: object, size: int | None) -> None:
    with store.session("s").turn() as turn, turn.step("x") as step:
        step.output = output
    assert (recorded(store).output_bytes, recorded(store).kind) == (size, "tool_execution")
    assert store.session("s").artifacts.list() == []


def test_a_streamed_output_is_read_once_and_kept_once(store: Store) -> None:
    with store.session("s").turn() as turn, turn.step("x") as step:
        step.output = Large.from_stream(io.BytesIO(b"y" * 3_000_000))
    found = recorded(store)
    assert (found.output_bytes, found.summary) == (3_000_000, "y" * SUMMARY)
    assert b"".join(store.session("s").artifacts.read(found.artifacts[0])) == b"y" * 3_000_000
    assert str(found.output) == "y" * 3_000_000


def test_a_step_of_no_kind_is_refused(store: Store) -> None:
    with store.session("s").turn() as turn, pytest.raises(Invalid, match="not one of tool_execution"):
        turn.step("x", kind="dance")
