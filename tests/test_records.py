"""Reports, tasks, config, and what belongs to one save."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

import holdfast
from a3s_files import CONFIG
from holdfast import (
    Check,
    ConfirmationPolicy,
    Event,
    Invalid,
    KeyReused,
    LeaseLost,
    LlmConfig,
    PermissionPolicy,
    QueueConfig,
    Report,
    SecurityConfig,
    SessionConfig,
    Stale,
    Store,
    Task,
    Tasks,
    assistant,
    checks_of,
    note,
    report,
    tasks,
    tasks_of,
    tool_call,
    tool_result,
    usage,
    user,
)
from holdfast.events.reporting import STATUSES

# --- Reports ---


@pytest.mark.parametrize(
    ("checks", "risks", "status"),
    [
        ([], (), "skipped"),
        ([], ("a risk",), "needs_review"),
        ([("passed", True)], (), "passed"),
        ([("passed", True), ("failed", False)], ("a risk",), "failed"),
        ([("passed", True), ("needs_review", False), ("skipped", False)], (), "passed"),
        ([("passed", True), ("needs_review", True)], (), "needs_review"),
        ([("passed", True), ("skipped", True)], (), "needs_review"),
        ([("passed", True)], ("a risk",), "needs_review"),
    ],
)
def test_the_status_follows_from_the_checks(
    checks: list[tuple[str, bool]], risks: tuple[str, ...], status: str
) -> None:
    told = [Check(id=str(n), status=s, required=r) for n, (s, r) in enumerate(checks)]
    assert report("build", told, residual_risks=risks).status == status


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.booleans())), st.booleans())
def test_the_status_is_that_of_the_rule(checks: list[tuple[str, bool]], risk: bool) -> None:
    told = [{"id": str(n), "status": s, "required": r} for n, (s, r) in enumerate(checks)]
    found = report("x", told, residual_risks=("r",) if risk else ()).status
    if any(s == "failed" for s, _ in checks):
        assert found == "failed"
    elif risk or ("needs_review", True) in checks or ("skipped", True) in checks:
        assert found == "needs_review"
    else:
        assert found == ("passed" if checks else "skipped")


def test_reports_come_back_with_all_fields(store: Store) -> None:
    session = store.session("s")
    assert session.reports() == []
    unit = Check(
        id="unit", kind="command", description="make test", status="passed", suggested_tools=("bash",),
        evidence_uris=("a3s://x",), residual_risk="slow ones were left out",
    )  # fmt: skip
    made = report("the change", [unit, {"id": "look", "status": "needs_review", "required": False, "later": 1}])
    session.append(made)
    session.append(*[note(str(n)) for n in range(600)])
    session.append(report("again", status="failed", metadata={"by": "me"}))
    first, second = session.reports()
    assert first == made
    assert first.checks[1]["later"] == 1
    assert checks_of(first)[0] == unit
    assert [c.required for c in checks_of(first)] == [True, False]
    assert (second.status, second.metadata) == ("failed", {"by": "me"})
    session.rewind(to=601)
    assert session.reports() == [first]
    assert session.fork().reports() == [first]
    session.clear()
    assert session.reports() == []


def test_reports_that_make_no_sense_are_refused(store: Store) -> None:
    for checks in ([{"status": "passed"}], [{"id": "a", "status": "ok"}], [Check(id="a"), Check(id="a")], [Check()]):
        with pytest.raises(Invalid):
            report("x", checks)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="'fine' is not one of"):
        report("x", status="fine")
    session = store.session("s")
    session.append(Report(subject="s", checks=({"id": 7},)))  # as another program may write it: it is kept
    with pytest.raises(Invalid, match="no check"):
        checks_of(session.reports()[0])


# --- Tasks ---


def test_the_tasks_are_the_newest_list(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    session = store.session("s")
    read = store.backend.read
    monkeypatch.setattr(store.backend, "read", None)
    assert session.tasks() == []  # nothing is read
    monkeypatch.setattr(store.backend, "read", read)
    plan = Task(
        id="1", content="Plan", status="completed", priority="high", tool="think", success_criteria="There is a plan."
    )
    session.append(tasks(plan, {"id": "2", "description": "Build", "dependencies": ["1"], "colour": "red"}))
    session.append(*[note(str(n)) for n in range(600)])
    assert session.tasks() == [plan, Task(id="2", content="Build", dependencies=("1",))]
    session.append(tasks(plan))
    assert session.tasks() == [plan]
    session.rewind(to=601)
    assert len(session.tasks()) == 2
    stored = next(session.events(types="tasks", last=1)).payload
    assert isinstance(stored, Tasks)
    assert stored.tasks[1] == {
        "id": "2", "content": "Build", "dependencies": ["1"], "colour": "red", "status": "pending", "priority": "medium"
    }  # fmt: skip
    assert len(session.fork().tasks()) == 2
    session.clear()
    assert session.tasks() == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([{"id": "1"}], "no task"),
        ([{"content": "x"}], "no task"),
        ([{"id": "", "content": "x"}], "needs an id"),
        ([{"id": "1", "content": "x", "status": "done"}], "status 'done' is not one of"),
        ([{"id": "1", "content": "x", "priority": "urgent"}], "priority 'urgent' is not one of"),
        ([{"id": "1", "content": "x"}, {"id": "1", "content": "y"}], "two tasks have the id '1'"),
        ([{"id": "1", "content": "x", "dependencies": ["2"]}], "depends on '2', which is not in the list"),
        ([{"id": "1", "content": "x", "dependencies": ["1"]}], "task '1' depends on itself"),
    ],
)
def test_task_lists_that_make_no_sense_are_refused(wrong: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        tasks(*wrong)


@given(st.dictionaries(st.integers(0, 6), st.sets(st.integers(0, 6)), max_size=7))
def test_a_circle_is_found_and_named(graph: dict[int, set[int]]) -> None:
    known = {id: {other for other in before if other in graph} for id, before in graph.items()}

    def reaches(id: int) -> set[int]:
        found: set[int] = set()
        left = [id]
        while left:
            for other in known[left.pop()] - found:
                found.add(other)
                left.append(other)
        return found

    items = [Task(id=str(i), content="x", dependencies=tuple(map(str, sorted(b)))) for i, b in known.items()]
    circular = {str(id) for id in known if id in reaches(id)}
    if not circular:
        assert len(tasks(*items).tasks) == len(known)
        return
    with pytest.raises(Invalid, match="depends on itself") as refused:
        tasks(*items)
    assert refused.value.id in circular


def test_a_list_of_another_program_is_kept_and_told() -> None:
    with pytest.raises(Invalid, match="no task"):
        tasks_of(Tasks(tasks=({"title": "write", "done": False},)))


# --- Config ---


def test_a_config_is_typed_and_loses_nothing(store: Store) -> None:
    wrote = SessionConfig(
        name="n", workspace="/w", system_prompt="Be brief.", max_context_length=200_000, auto_compact=True,
        auto_compact_threshold=0.8, storage_type="file", planning_mode="Auto", goal_tracking=False, parent_id="p",
        queue_config=QueueConfig(control_max_concurrency=2, lane_timeouts={"Query": 5}),
        confirmation_policy=ConfirmationPolicy(enabled=True, timeout_action="Reject", yolo_lanes=("Query",)),
        permission_policy=PermissionPolicy(deny=({"rule": "Bash(rm:*)"}, "Write"), default_decision="ask"),
        llm=LlmConfig(provider="p", model="m"),
    )  # fmt: skip
    session = store.session("s", config=wrote)
    assert SessionConfig.of(session.info().config) == wrote
    assert session.info().config["queue_config"] == {"controlMaxConcurrency": 2, "laneTimeouts": {"Query": 5}}
    session.update(config={"later": 1, "confirmation_policy": {"enabled": False, "later": {"a": 1}}})
    session.update(config=SessionConfig(confirmation_policy=ConfirmationPolicy(default_timeout_ms=5), workspace="/v"))
    found = session.info().config
    assert found["confirmation_policy"] == {"enabled": False, "later": {"a": 1}, "default_timeout_ms": 5}
    assert (found["later"], found["workspace"], found["name"]) == (1, "/v", "n")
    assert SessionConfig.of({"later": 1}) == SessionConfig()
    with pytest.raises(Invalid, match=r"max_context_length"):
        SessionConfig.of({"max_context_length": "many"})


PARTS = {
    "queue_config": QueueConfig,
    "confirmation_policy": ConfirmationPolicy,
    "permission_policy": PermissionPolicy,
    "security_config": SecurityConfig,
    "llm": LlmConfig,
}
WHOLE = {
    **CONFIG,
    "llm": {"provider": "p", "model": "m", "base_url": "https://host/v1"},
    "max_artifacts": 5,
    "max_artifact_bytes": 6,
}


def test_a_config_has_all_that_a3s_code_s_has() -> None:
    """The lists are those of its structs, in the order in which it writes them."""
    own = (
        "name workspace system_prompt max_context_length auto_compact auto_compact_threshold storage_type "
        "queue_config confirmation_policy permission_policy parent_id security_config planning_mode goal_tracking"
    )
    fields = {
        "queue_config": "controlMaxConcurrency queryMaxConcurrency executeMaxConcurrency generateMaxConcurrency "
        "laneHandlers enableDlq dlqMaxSize enableMetrics enableAlerts defaultTimeoutMs storagePath retryPolicy "
        "rateLimit priorityBoost pressureThreshold laneTimeouts",
        "confirmation_policy": "enabled default_timeout_ms timeout_action yolo_lanes",
        "permission_policy": "deny allow ask default_decision enabled",
        "security_config": "enabled classification_rules redaction_strategy network_whitelist dangerous_commands "
        "features",
        "llm": "provider model base_url",
    }
    assert list(CONFIG) == own.split()
    assert set(SessionConfig.__struct_encode_fields__) == set(WHOLE)
    for name, part in PARTS.items():
        assert set(part.__struct_encode_fields__) == set(fields[name].split()) == set(WHOLE[name])
    assert len(CONFIG["queue_config"]) == 16
    assert set(CONFIG["security_config"]["features"]) == {
        "output_sanitizer", "taint_tracking", "tool_interceptor", "injection_defense",
    }  # fmt: skip


def test_a_whole_config_comes_back(url: str) -> None:
    wrote = SessionConfig.of(WHOLE)
    for said in (wrote, *(getattr(wrote, name) for name in PARTS)):
        assert None not in msgspec.structs.astuple(said)
    with holdfast.open(url) as store:
        found = store.session("s", config=wrote).info().config
        assert (found, SessionConfig.of(found)) == (WHOLE, wrote)
        found = store.session("t", config={"later": 1}).update(config=wrote).config
        assert (found, SessionConfig.of(found)) == ({"later": 1, **WHOLE}, wrote)
        if url.startswith("memory"):
            return
    with holdfast.open(url) as store:
        found = store.session("s").info().config
        assert (found, SessionConfig.of(found)) == (WHOLE, wrote)
        assert SessionConfig.of(store.session("t").info().config) == wrote


SECRET = "sk-hunter2hunter2hunter2"


def held(store: Store) -> bool:
    info = store.session("s").info()
    return SECRET in repr(info.config) + repr(info.metadata)


def test_secrets_of_a_config_are_not_written(url: str) -> None:
    config = {
        "llm": {"provider": "p", "api_key": SECRET, "base_url": f"https://me:{SECRET}@host/v1", "max_tokens": 7},
        "apiKey": SECRET,
        "tools": [{"name": "t", "auth-token": SECRET, "headers": {"Authorization": SECRET}}],
        "mine": {"x": SECRET},
    }
    with holdfast.open(url, secrets=["mine"]) as store:
        session = store.session("s", config=config, metadata={"mine": SECRET, "deep": [{"mine": SECRET}]})
        assert not held(store)
        session.update(config={"a": config}, metadata={"mine": SECRET, "b": {"mine": SECRET, "c": 1}})
        session.save(note("n"), config=config)
        store.create("t", config=config)
        assert not held(store)
        found = session.info()
        assert found.config["llm"] == {"provider": "p", "base_url": "https://me:***@host/v1", "max_tokens": 7}
        assert found.config["tools"] == [{"name": "t", "headers": {}}]
        assert found.metadata == {"deep": [{}], "b": {"c": 1}}
    with pytest.raises(Invalid, match="list of names"):
        holdfast.open(url, secrets="mine")


def test_what_stands_under_a_name_is_not_written_with_events(url: str) -> None:
    hidden, shown = {"mine": SECRET, "deep": [{"mine": [SECRET]}, 1]}, {"mine": "***", "deep": [{"mine": "***"}, 1]}
    with holdfast.open(url, secrets=["mine"]) as store:
        session = store.session("s")
        with session.turn() as turn:
            turn.append(
                assistant("Text", tool_call("c", "t", hidden), metadata=hidden),
                tool_result("c", hidden),
                holdfast.step("t", hidden, call_id="c", metadata=hidden),
                holdfast.custom("x.mine", hidden),
                holdfast.Event(payload=holdfast.custom("x.timed", hidden), at=5),
                holdfast.user(holdfast.OtherPart(data={"type": "odd", **hidden}), "x" * 100_000),
            )
            with turn.step("t", hidden) as step:
                step.output = hidden
        session.save(holdfast.custom("x.more", hidden), key="k")
        assert session.save(holdfast.custom("x.more", hidden), key="k").repeated
        assert all(SECRET.encode() not in event.raw for event in session.events(include_hidden=True))
        message = session.messages()[0]
        assert (message.tool_calls[0].arguments, message.metadata, message.text) == (shown, shown, "Text")
        assert session.messages()[2].text == "x" * 100_000
        assert store.search(SECRET).items == []


# --- One save ---


def test_a_save_is_all_or_nothing(store: Store) -> None:
    session = store.session("s")
    receipt = session.save(
        user("Hi"), assistant("Hello"), usage("m", 1, response_id="r"), tasks(Task(id="1", content="x")),
        key="k", title="T", labels=["l"], metadata={"a": 1}, config={"b": 2},
    )  # fmt: skip
    info = session.info()
    assert (receipt.first, receipt.last, info.rev) == (1, 4, 2)
    assert (info.title, info.labels, info.metadata, info.config) == ("T", ("l",), {"a": 1}, {"b": 2})
    again = session.save(
        user("Hi"), assistant("Hello"), usage("m", 1, response_id="r"), tasks(Task(id="1", content="x")),
        key="k", title="other", metadata={"a": 2},
    )  # fmt: skip
    assert (again.repeated, session.info()) == (True, info)
    with pytest.raises(KeyReused):
        session.save(user("Other"), key="k", title="other")
    with pytest.raises(Stale):
        session.save(user("Other"), expect=3, metadata={"a": 2})
    with pytest.raises(Invalid):
        session.save(title="nothing to append")
    with pytest.raises(Invalid):
        session.save(user("Other"), colour="red")
    assert session.info() == info


def test_saves_at_once_all_hold(store: Store) -> None:
    def write(number: int) -> None:
        session = store.session("s")
        for n in range(10):
            session.save(note("n"), metadata={f"{number}-{n}": n}, key=f"{number}-{n}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    info = store.session("s").info()
    assert (len(info.metadata), info.last) == (40, 40)


def test_a_turn_that_was_overtaken_saves_nothing(store: Store) -> None:
    session = store.session("s")
    with session.turn() as turn:
        turn.save(note("in time"), metadata={"a": 1})
    with pytest.raises(LeaseLost):
        turn.save(note("late"), metadata={"a": 2})
    with pytest.raises(LeaseLost):
        turn.save(note("late"), title="late")
    assert (session.info().metadata, session.info().title) == ({"a": 1}, None)


def test_a_save_with_a_time_of_its_own(store: Store) -> None:
    session = store.session("s")
    session.save(Event(payload=user("Hi"), at=1_700_000_000_000_000), name="n")
    assert (session.info().name, next(session.events()).at) == ("n", 1_700_000_000_000_000)
