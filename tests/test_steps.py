"""Steps of a turn, and that no secret of an error gets into the log."""

from __future__ import annotations

import io

import pytest

import holdfast
from holdfast import Invalid, Large, LeaseLost, Step, Store
from holdfast.redact import LIMIT, redacted, told
from holdfast.steps import SUMMARY


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
