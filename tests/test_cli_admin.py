"""The command about the store itself: init, info, doctor, version, and the shell's completion."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

import holdfast
from shell import COMMAND, Shell


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_init_creates_once_and_changes_nothing_after(shell: Shell) -> None:
    assert shell.ok("init", "--json").json == {"url": shell.url, "created": True}
    shell.ok("append", "s", "Hi", "--create")
    assert shell.ok("init", "--json").json == {"url": shell.url, "created": False}
    assert shell.ok("session", "show", "s", "--json").json["items"][0]["seq"] == 1


@pytest.mark.parametrize(
    "args",
    [
        ["session", "list"],
        ["session", "show", "@last"],
        ["tail", "s"],
        ["search", "x"],
        ["check"],
        ["info"],
        ["export", "s"],
    ],
)
def test_what_only_reads_creates_no_store(shell: Shell, args: list[str]) -> None:
    done = shell(*args)
    assert done.code == 3
    assert "holdfast init" in done.err
    assert os.listdir(shell.place) == []


def test_the_default_place_is_in_the_data_directory(shell: Shell) -> None:
    data = shell.place / "data"
    done = shell("init", env={"HOLDFAST_URL": "", "XDG_DATA_HOME": str(data), "HOME": str(shell.place)})
    assert done.code == 0
    assert done.out.startswith("sqlite://")
    assert done.out.endswith("/holdfast/holdfast.db\n")
    assert str(shell.place) in done.out


def test_info_tells_the_durability(shell: Shell) -> None:
    shell.ok("init")
    assert shell.ok("info", "--json").json["backend"]["durability"] == "disk"
    told = shell.ok("info", "--store", shell.url + "?durability=process", "--json").json
    assert told["backend"]["durability"] == "process"


def test_doctor_finds_a_store_that_others_can_read(shell: Shell) -> None:
    before = shell.ok("doctor", "--json").json
    assert (before["ok"], before["store"]["there"]) == (True, False)
    shell.ok("init")
    path = shell.place / "store.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert shell.ok("doctor").out.endswith("nothing is wrong\n")
    path.chmod(0o644)
    done = shell("doctor", "--json")
    assert (done.code, done.json["ok"], done.json["store"]["mode"]) == (1, False, "0644")
    assert "others can read it" in done.json["problems"][0]


def test_doctor_says_that_a_store_can_not_be_opened(shell: Shell) -> None:
    (shell.place / "store.db").write_bytes(b"this is no database, but long enough to look like one" * 100)
    (shell.place / "store.db").chmod(0o600)
    done = shell("doctor")
    assert done.code == 1
    assert "can't be opened" in done.out


def test_doctor_never_opens_the_database_file_itself(shell: Shell) -> None:
    shell.ok("init")
    watch = (
        "import sys\n"
        "def hook(event, args):\n"
        "    if event == 'open' and str(args[0]).endswith('store.db'):\n"
        "        sys.stderr.write(sys._getframe(1).f_code.co_filename + '\\n')\n"
        "sys.addaudithook(hook)\n"
        "from holdfast.cli import main\n"
        "main(['doctor'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", watch], cwd=shell.place, env=shell.env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    opened = done.stderr.splitlines()  # the backend itself holds a guard on its file, and never lets go of it
    assert opened
    assert all(line.endswith("backends/claims.py") for line in opened)


def completions(shell: Shell, *words: str) -> list[str]:
    env = {
        "_HOLDFAST_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["holdfast", *words]),
        "COMP_CWORD": str(len(words)),
    }
    done = shell(env=env)
    assert done.code == 0, done
    assert done.err == ""
    return [line.partition(",")[2] for line in done.out.splitlines() if line]


def test_completion_knows_commands_and_the_names_of_sessions(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        store.session("order-7", name="outing")
        store.session("other")
    assert completions(shell, "sess") == ["session"]
    assert sorted(completions(shell, "session", "show", "o")) == ["order-7", "other", "outing"]
    assert completions(shell, "tail", "--json", "@") == ["@last"]
    other = f"sqlite://{shell.place}/nothing.db"
    assert completions(shell, "--store", other, "tail", "o") == []
    assert not (shell.place / "nothing.db").exists()


def test_completion_for_one_user_names_her_sessions_only(shell: Shell) -> None:
    with holdfast.open(shell.url) as store:
        store.session("bobs", user="bob", name="bob-s")
        store.session("both", user="ann")
    shell.env["HOLDFAST_USER"] = "ann"
    assert completions(shell, "session", "show", "bo") == ["both"]
    assert sorted(completions(shell, "--user", "bob", "session", "show", "bo")) == ["bob-s", "bobs"]


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_that_the_shell_takes(shell: Shell, name: str) -> None:
    script = shell.ok("completion", name).out
    assert "_HOLDFAST_COMPLETE" in script
    if path := shutil.which(name):
        done = subprocess.run([path, "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_command_works_as_it_was_installed(shell: Shell) -> None:
    command = Path(sys.executable).parent / "holdfast"
    done = subprocess.run([command, "version"], env=shell.env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"holdfast {holdfast.__version__}\n")


def quickest(*args: str, env: dict[str, str]) -> float:
    """The least seconds of several runs: what a command takes when nothing is in its way."""
    took: list[float] = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run(args, env=env, capture_output=True, check=True)
        took.append(time.perf_counter() - start)
    return min(took)


def test_the_version_is_told_about_as_soon_as_python_is_up(shell: Shell) -> None:
    bare = quickest(sys.executable, "-c", "pass", env=shell.env)
    assert quickest(*COMMAND, "--version", env=shell.env) < 5 * bare
