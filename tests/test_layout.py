"""The shape of the source: who may import whom, and how long a file and a function may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "holdfast"
MODULES = sorted(SOURCE.rglob("*.py"))

MAX_LINES = 450
MAX_FUNCTION = 50

BOTTOM = {
    "errors",
    "forks",
    "paths",
    "clock",
    "parts",
    "model",
    "codec",
    "plan",
    "refusals",
    "search",
    "shown",
    "urls",
    "wording",
}
TOP = {
    "cli",
    "web",
    "adapters",
    "formats",
    "importer",
    "importing",
}
NOUNS = {
    "aio",
    "artifacts",
    "context",
    "documents",
    "events",
    "finding",
    "heads",
    "history",
    "importing",
    "moving",
    "retention",
    "turns",
}
"""The packages whose modules the map in docs/ARCHITECTURE.md names one by one."""
FOR_BACKENDS = {
    "plan",
    "model",
    "errors",
    "clock",
    "backend",
    "search",
    "forks",
    "packed",
    "reading",
    "shown",
    "urls",
    "backends",
}


class Import(NamedTuple):
    """One import of a module of holdfast: by whom, of what, where, and in which function."""

    module: str
    of: str
    line: int
    function: str | None


def name_of(path: Path) -> str:
    """`backends.sqlite` for src/holdfast/backends/sqlite.py; "" for the package itself."""
    inside = path.relative_to(SOURCE).with_suffix("")
    return ".".join(part for part in inside.parts if part != "__init__")


def imports(path: Path) -> Iterator[Import]:
    module = name_of(path)
    package = path.relative_to(SOURCE).parent.parts

    def walk(node: ast.AST, function: str | None) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            for target in targets(child):
                yield Import(module, target, child.lineno, function)  # type: ignore[attr-defined]
            yield from walk(child, inner)

    def targets(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            full = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ["holdfast", *package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            full = [".".join(part for part in base if part)]
        elif isinstance(node, ast.ImportFrom) and node.module == "holdfast":
            full = [f"holdfast.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            full = [node.module or ""]
        else:
            return
        for name in full:
            if name == "holdfast" or name.startswith("holdfast."):
                yield name.removeprefix("holdfast").removeprefix(".")

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), None)


def top_of(module: str) -> str:
    return module.partition(".")[0]


def wrong(found: Import) -> str | None:
    """Why an import breaks the rule; None if it keeps it."""
    here, there = top_of(found.module), top_of(found.of)
    if here in BOTTOM or here == "backend":
        return None if there in BOTTOM else "what lies at the bottom knows nothing above it"
    if found.of.startswith("backends.") and (here != "backends" or found.module == "backends"):
        lazily = found.module == "backends" and found.function in ("open_backend", "rehearsed")
        described = found.module == "schema" and found.of == "backends.jsonl"
        return None if lazily or described else "only backends.open_backend imports a backend, when it is asked for"
    if here == "backends":
        return None if there in FOR_BACKENDS else "a backend imports only plan, model, errors and the seam"
    if there in TOP and here not in TOP and here != "":
        return "what is built on the store is not imported by it"
    return None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "holdfast")
def test_imports_go_from_top_to_bottom(path: Path) -> None:
    broken = [f"{path.name}:{i.line} imports {i.of}: {why}" for i in imports(path) if (why := wrong(i))]
    assert not broken


@pytest.mark.parametrize("path", MODULES, ids=lambda path: name_of(path) or "holdfast")
def test_a_file_fits_a_head_and_a_function_a_screen(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    long = [
        f"{node.name}: {size} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    ]
    assert not long


def test_the_map_of_the_modules_is_whole() -> None:
    text = (SOURCE.parent.parent / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("## Where to find what")[2].partition("\n## ")[0]
    named = re.findall(r"`([a-z_0-9.]+/?)`", table.partition("|---|")[2])
    there = {f"{name}/" if (SOURCE / name).is_dir() else name for name in map(top_of, map(name_of, MODULES)) if name}
    inside = {name.rpartition(".")[2] for name in map(name_of, MODULES) if top_of(name) in NOUNS and "." in name}
    assert sorted(set(named)) == sorted(there | inside)


@pytest.mark.parametrize(
    ("module", "of", "function"),
    [
        ("store", "backends.sqlite", "open"),
        ("backend", "backends", None),
        ("backends", "backends.memory", None),
        ("urls", "backends", None),
        ("backends.sqlite", "store", None),
        ("backends.sqlite", "codec", None),
        ("plan", "backend", None),
        ("codec", "store", None),
        ("backend", "session", None),
        ("session", "cli.main", None),
        ("bundle", "formats.codex", None),
    ],
)
def test_the_rule_refuses(module: str, of: str, function: str | None) -> None:
    assert wrong(Import(module, of, 1, function))


def test_the_reader_of_imports_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import holdfast.store\nfrom holdfast import plan, codec\ndef f():\n    from holdfast.cli import main\n"
    path = tmp_path / "x.py"
    path.write_text(text)
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    assert [(i.of, i.function) for i in imports(path)] == [
        ("store", None),
        ("plan", None),
        ("codec", None),
        ("cli", "f"),
    ]
