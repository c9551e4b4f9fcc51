"""Task lists: what an agent has set out to do, as it stands now. Each change is the whole list anew, as one event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast.errors import Invalid
from holdfast.events.reporting import plain
from holdfast.model import Tasks

STATUSES = ("pending", "in_progress", "completed", "failed", "skipped", "cancelled")
PRIORITIES = ("high", "medium", "low")


class Task(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One task. `status` is pending, in_progress, completed, failed, skipped or cancelled, `priority` high, medium or
    low; `dependencies` are the ids of those that come before it.
    """

    id: str
    content: str
    status: str = "pending"
    priority: str = "medium"
    tool: str | None = None
    dependencies: tuple[str, ...] = ()
    success_criteria: str | None = None


def tasks(*items: Task | Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> Tasks:
    """The list of tasks as it stands now, to be appended. Fields that are not known here are kept.

    A mapping may call its content `description`, as some programs do.

    Raises:
        Invalid: a task lacks its id or content, two have one id, a status or priority is none, or a task depends on one
            that is not in the list, or on itself, be it through others.
    """
    told = tuple(_told(item) for item in items)
    depends: dict[str, Sequence[str]] = {}
    for task in told:
        typed = _typed(task)
        if typed.id in depends:
            raise Invalid(f"two tasks have the id {typed.id!r}", id=typed.id)
        depends[typed.id] = typed.dependencies
    for id, before in depends.items():
        if unknown := [other for other in before if other not in depends]:
            raise Invalid(f"task {id!r} depends on {unknown[0]!r}, which is not in the list", id=id)
    if (circle := _circle(depends)) is not None:
        raise Invalid(f"task {circle!r} depends on itself, maybe through others; break the circle", id=circle)
    return Tasks(tasks=told, metadata=None if metadata is None else dict(metadata))


def tasks_of(payload: Tasks) -> list[Task]:
    """A stored list's tasks, typed; fields that are not known here are in `payload.tasks`.

    Raises:
        Invalid: one is no task: another program wrote it.
    """
    return [_typed(_renamed(task)) for task in payload.tasks]


def _told(item: Task | Mapping[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = _renamed(plain(item) if isinstance(item, Task) else item)
    # Said, and not left to what a reader takes for the default.
    return {**told, "status": told.get("status", "pending"), "priority": told.get("priority", "medium")}


def _renamed(task: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(task)
    if "content" not in told and "description" in told:
        told["content"] = told.pop("description")
    return told


def _typed(told: Mapping[str, Any]) -> Task:
    try:
        task = msgspec.convert(told, Task)
    except msgspec.ValidationError as error:
        raise Invalid(f"this is no task: {error}", task=told) from None
    if not task.id:
        raise Invalid("a task needs an id, by which it is told from the others", task=told)
    for what, value, known in (("status", task.status, STATUSES), ("priority", task.priority, PRIORITIES)):
        if value not in known:
            raise Invalid(f"task {task.id!r}: {what} {value!r} is not one of {', '.join(known)}", id=task.id)
    return task


def _circle(depends: Mapping[str, Sequence[str]]) -> str | None:
    """A task that depends on itself: what is left once all were taken away that depend on nothing any more."""
    left = {id: set(before) for id, before in depends.items()}
    after: dict[str, list[str]] = {}
    for id, before in left.items():
        for other in before:
            after.setdefault(other, []).append(id)
    free = [id for id, before in left.items() if not before]
    while free:
        done = free.pop()
        del left[done]
        for id in after.get(done, ()):
            left[id].discard(done)
            if not left[id]:
                free.append(id)
    # What only leads to a circle is left, too; whoever goes back along it comes into the circle.
    at = next(iter(left), None)
    for _ in range(len(left)):
        at = min(left[at]) if at is not None else None
    return at
