"""The agent of `holdfast demo`: a script stands in for the model, but its tools really run.

It can be killed at any moment and started again. What it asked and what was answered is in its session, so a new
process runs no finished tool again and answers the call that was left open. It reports each acknowledged append on
stdout, one JSON object a line.

    python -m holdfast.cli.agent URL SESSION FOLDER
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

import holdfast
from holdfast import Session, assistant, step, tool_call, tool_result, usage, user

TASK = "How bright is the lighthouse? Add up the primes below 2,000,000, write the sum down, and check it."
PRIMES = """
n = 2_000_000
sieve = bytearray([1]) * n
sieve[:2] = b"\\0\\0"
for p in range(2, n):
    if sieve[p]:
        for q in range(p * p, n, p):
            sieve[q] = 0
print(sum(p for p in range(n) if sieve[p]))
"""
RUNS = "runs.txt"
"""The file in the agent's folder that gets a line each time a tool runs."""


class Turn(NamedTuple):
    """What the agent says, and the tool it then calls."""

    id: str
    says: str
    tool: str
    arguments: dict[str, Any]


SCRIPT = (
    Turn("c1", "First I look at what is there.", "list_files", {}),
    Turn("c2", "One of the notes may name the lighthouse.", "search_text", {"word": "lighthouse"}),
    Turn("c3", "Now the sum, with Python.", "run_python", {"code": PRIMES}),
    Turn("c4", "I write it down.", "write_file", {"name": "sum.txt", "from_call": "c3"}),
    Turn("c5", "And I check that it can be found.", "search_text", {"word": "sum"}),
)
ANSWER = "The note says 1,200 candela, and the sum of the primes below 2,000,000 is {sum}; it is in sum.txt."


def list_files(folder: str) -> str:
    """The files of the folder with their sizes."""
    return "\n".join(f"{e.name}  {e.stat().st_size} bytes" for e in sorted(os.scandir(folder), key=lambda e: e.name))


def search_text(folder: str, word: str) -> str:
    """Every line of the folder's files that holds the word, after the name of its file."""
    found: list[str] = []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            found += [f"{name}: {line.strip()}" for line in file if word in line]
    return "\n".join(found)


def run_python(folder: str, code: str) -> str:
    """What a program prints."""
    done = subprocess.run(  # noqa: S603  # the program is written above
        [sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


def write_file(folder: str, name: str, text: str) -> str:
    """Write a small file."""
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text + "\n")
    return f"wrote {len(text) + 1} bytes to {name}"


TOOLS: dict[str, Callable[..., str]] = {f.__name__: f for f in (list_files, search_text, run_python, write_file)}


def report(**facts: Any) -> None:
    """Tell the parent."""
    sys.stdout.write(msgspec.json.encode(facts).decode() + "\n")
    sys.stdout.flush()


def run(session: Session, folder: str) -> None:
    """Do the task from where the session stands."""
    messages = session.messages()
    asked = {call.id for message in messages for call in message.tool_calls}
    answers = {str(result.id): str(result.response) for message in messages for result in message.tool_results}
    if asked:
        report(say=f"{len(answers)} of {len(asked)} calls were answered; those are not run again")
    first = session.append(user(TASK), key="task")
    if not first.repeated:
        report(seq=first.last, say=f"user: {TASK}")
    for turn in SCRIPT:
        if turn.id in answers:
            report(say=f"{turn.id} {turn.tool}: finished before")
            continue
        if turn.id in asked:
            report(seq=session.last, say=f"{turn.id} {turn.tool}: was left open; it is run and answered")
        else:
            ask(session, turn)
        answers[turn.id] = answer(session, turn, folder, answers)
    final = session.append(assistant(ANSWER.format(sum=answers["c3"])), key="answer")
    report(seq=final.last, say=f"assistant: {ANSWER.format(sum=answers['c3'])}")


def ask(session: Session, turn: Turn) -> None:
    """The model's part of a turn: it calls a tool."""
    said = assistant(turn.says, tool_call(turn.id, turn.tool, turn.arguments))
    spent = usage("scripted", len(TASK.split()), len(turn.says.split()), provider="none")
    receipt = session.append(said, spent, key=f"ask-{turn.id}")
    report(seq=receipt.last, say=f"assistant: {turn.says} -> {turn.tool}")


def answer(session: Session, turn: Turn, folder: str, answers: dict[str, str]) -> str:
    """The tool's part: it runs, and its step and its result are stored together."""
    with open(os.path.join(os.path.dirname(folder), RUNS), "a", encoding="utf-8") as runs:
        runs.write(turn.id + "\n")
    report(running=turn.id, say=f"{turn.tool} runs ...")
    arguments = dict(turn.arguments)
    if before := arguments.pop("from_call", None):
        arguments["text"] = f"sum of the primes: {answers[before]}"
    start = time.monotonic_ns()
    output = TOOLS[turn.tool](folder, **arguments)
    took = (time.monotonic_ns() - start) // 1000
    receipt = session.append(
        step(turn.tool, arguments, output, call_id=turn.id, duration=took),
        tool_result(turn.id, output, name=turn.tool, duration=took),
        key=f"answer-{turn.id}",
    )
    report(seq=receipt.last, say=f"{turn.tool}: {' / '.join(output.splitlines())[:80]}")
    return output


def main(url: str, id: str, folder: str) -> None:
    """Open the store and do the task."""
    with holdfast.open(url) as store:
        run(store.session(id, name="demo", agent="scripted", title=TASK[:28]), folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
