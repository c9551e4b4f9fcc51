"""The names that users build on: exactly these, each where it is said to be, and cheap to import."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

NAMES = """
AsyncSession AsyncStore AsyncTurn aopen acopy_store afollow_store
Branch CheckReport Context ContextUsage Finding Problem Repair
Conflict Corrupt Deleted Denied Exists HoldfastError Invalid KeyReused LeaseHeld LeaseLost NotFound ReadOnly
Stale TooLarge Trashed Unavailable Uncertain
Counts SessionInfo
Artifact Blob Custom Damaged Edit Event File Large Message Note Other OtherPart Reasoning Report Source State Step
Summary Tasks Text ToolCall ToolResult Uri Usage
assistant custom message note reasoning step system text tool_call tool_result usage usd user
Receipt Session
AgentPrune AppliedAgents AsyncDocuments Document DocumentInfo Documents PlannedAgent
Artifacts AsyncArtifacts Swept Check checks_of report Task tasks tasks_of Price UsageReport UsageTotal priced
ConfirmationPolicy LlmConfig PermissionPolicy QueueConfig SecurityConfig SessionConfig
AsyncPrunePlan AsyncTrash Chosen Policy Prune PrunePlan Pruned Purged Restored Spared Trash TrashedSession
Backup Behind Copied CopyReport copy_store follow_store
Change Finished Lease Page Recovery Replica SearchHit Store Turn open
__version__
""".split()  # noqa: SIM905  # a list of lines reads better

LATE = ("sqlite3", "apsw", "click", "rich", "zstandard", "platformdirs", "asyncio", "msgspec")


def test_the_public_names_are_these() -> None:
    assert sorted(holdfast.__all__) == sorted(NAMES)
    assert set(NAMES) <= set(dir(holdfast))


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves(name: str) -> None:
    assert getattr(holdfast, name) is not None


def test_a_type_checker_sees_the_same_names() -> None:
    tree = ast.parse(Path(holdfast.__file__).read_text(encoding="utf-8"))
    named = {
        (f"{node.module}", alias.asname)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast.")
        for alias in node.names
    }
    assert named == {(f"holdfast.{module}", name) for name, module in holdfast._MODULE_OF.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        holdfast.nothing  # noqa: B018  # looking it up is the test


def test_importing_holdfast_imports_nothing_heavy() -> None:
    code = f"import sys, holdfast; print([m for m in {LATE!r} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_the_names_of_errors_bring_nothing_heavy() -> None:
    code = f"import sys, holdfast; holdfast.Conflict; print([m for m in {LATE!r} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_a_type_checker_of_a_user_knows_the_names_and_tells_a_wrong_one(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import holdfast\n"
        "from holdfast import Session, user\n"
        "def last(session: Session) -> int:\n"
        "    return session.append(user('Hi')).last\n"
        "with holdfast.open('memory://') as store:\n"
        "    print(last(store.session()))\n"
        "print(holdfast.opn)\n"
    )
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(program)]
    told = json.loads(subprocess.run(pyright, cwd=tmp_path, capture_output=True, text=True, check=False).stdout)
    errors = [(d["range"]["start"]["line"] + 1, d["rule"]) for d in told["generalDiagnostics"]]
    assert errors == [(7, "reportAttributeAccessIssue")]
