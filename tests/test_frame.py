"""What surrounds the code: set-up by two commands, one check, versions, and formats that open for ever."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SET_UP = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_readme_sets_up_with_two_commands() -> None:
    demo, tests = (block.strip() for block in SET_UP)
    assert demo.endswith("holdfast demo")
    assert tests == "python3 scripts/test.py"


def test_the_first_command_of_the_readme_works_on_a_fresh_copy(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    env = {**os.environ, "HOLDFAST_URL": f"sqlite://{tmp_path}/demo.db"}
    command = ["bash", "-c", SET_UP[0]]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_tests_of_the_readme_then_lint_and_types() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    steps = [line.removeprefix("step ") for line in lines if line.startswith("step ")]
    assert steps[0].startswith(SET_UP[1].strip())
    assert [step.rpartition("/")[2] for step in steps[1:]] == ["ruff check .", "ruff format --check .", "pyright"]


def test_every_recipe_says_what_it_is_for() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = re.findall(r"^([a-z][a-z-]*):(.*)$", makefile, re.MULTILINE)
    assert {"setup", "check", "test", "test-long", "bench", "docs"} <= {name for name, _ in recipes}
    assert all("##" in rest for _, rest in recipes)


def test_the_changelog_begins_with_this_version() -> None:
    versions = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert versions[0] == holdfast.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", holdfast.__version__)


def test_the_test_command_needs_nothing_but_the_standard_library() -> None:
    code = "import runpy, sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; "
    code += f"runpy.run_path({str(ROOT / 'scripts' / 'test.py')!r})"
    subprocess.run([sys.executable, "-S", "-c", code], check=True)


SKIPS = """
import pytest

@pytest.mark.server
def test_of_a_server(): pass

{more}
"""


@pytest.mark.parametrize(
    ("more", "options", "code", "told"),
    [
        ("", [], 0, "1 passed"),
        ("", ["--no-servers"], 0, "left out as asked by --no-servers"),
        ("def test_b(): pytest.skip('not today')", [], 1, "was skipped and nobody asked for it"),
        ("def test_b(): pytest.skip('not run here: no package')", [], 0, "not run here"),
        ("@pytest.mark.skip\ndef test_b(): pass", ["--no-servers"], 1, "was skipped and nobody asked for it"),
        ("pytest.importorskip('no_such_module')", [], 2, "was skipped and nobody asked for it"),
        ("@pytest.mark.xfail(strict=True)\ndef test_b(): assert False", [], 0, "1 xfailed"),
    ],
)
def test_no_test_is_skipped_unless_asked_for(
    tmp_path: Path, more: str, options: list[str], code: int, told: str
) -> None:
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "test_a.py").write_text(SKIPS.format(more=more))
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "test_a.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, told in done.stdout) == (code, True), done.stdout


def test_what_was_left_out_is_listed_by_file() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-servers"]
    done = subprocess.run(
        [*command, "tests/test_servers.py"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert "tests/test_servers.py: 1 tests: left out as asked by --no-servers" in done.stdout, done.stdout


def test_a_package_that_can_not_be_installed_does_not_end_the_test_command(tmp_path: Path) -> None:
    for name, script in (("python", "echo apt nonsense"), ("apt-get", "exit 100")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    code = (
        f"import runpy; runpy.run_path({str(ROOT / 'scripts' / 'test.py')!r})['servers']({str(tmp_path / 'python')!r})"
    )
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "nonsense could not be installed" in done.stdout) == (0, True), done
