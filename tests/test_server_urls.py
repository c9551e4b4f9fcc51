"""URLs of servers: their parts, and that no error, repr or store shows a password."""

from __future__ import annotations

import importlib.util

import pytest

import holdfast
from holdfast import Invalid, Unavailable
from holdfast.backends import open_backend, require
from holdfast.shown import shown
from holdfast.storage import Storage
from holdfast.urls import parse_url

SECRET = "s3cr@t:/x"
QUOTED = "s3cr%40t%3A%2Fx"


def test_a_servers_url_is_cut_into_its_parts() -> None:
    where = parse_url(f"postgresql://an%40n:{QUOTED}@db.example:6543/agents?schema=s&durability=disk")
    assert (where.scheme, where.path, where.user, where.password) == ("postgresql", "agents", "an@n", SECRET)
    assert where.hosts == (("db.example", 6543),)
    assert where.params == {"schema": "s", "durability": "disk"}


@pytest.mark.parametrize(
    ("url", "hosts", "path"),
    [
        ("postgresql://h/db", (("h", None),), "db"),
        ("postgresql:///db", (), "db"),
        ("postgresql://u@a:1,b:2,c/db", (("a", 1), ("b", 2), ("c", None)), "db"),
        ("postgresql://[::1]:5432/db", (("::1", 5432),), "db"),
        ("postgresql://%2Frun%2Fpg/db", (("/run/pg", None),), "db"),
        ("redis://h:6379/2", (("h", 6379),), "2"),
        ("rediss://:pw@h", (("h", None),), ""),
    ],
)
def test_hosts_and_databases(url: str, hosts: object, path: str) -> None:
    where = parse_url(url)
    assert (where.hosts, where.path) == (hosts, path)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{QUOTED}@h/db",
        f"redis://:{QUOTED}@h:1/0",
        f"postgresql://ann:{SECRET}@h/db?nonsense=1",
        f"postgresql://ann:{QUOTED}@h/db?password={SECRET}",
        f"postgresql://ann:{QUOTED}@h/db?durability=ram",
        f"postgresql://ann:{QUOTED}@h:port/db",
        f"postgresql://ann:{QUOTED}@h:1:2/db",
        f"postgresql://ann:{QUOTED}@[h/db",
        f"postgresql://ann:{QUOTED}@h/d/b",
        f"postgresql://ann:{QUOTED}@h/%00",
        f"postgresql://ann:{QUOTED}@h/db#x",
        f"mysql://ann:{QUOTED}@h/db",
        f"1://ann:{QUOTED}@h/db",
        f"sqlite://ann:{QUOTED}@h/db",
    ],
)
def test_no_password_is_told(url: str) -> None:
    try:
        where = parse_url(url)
    except Invalid as error:
        told = str(error), repr(error.facts), repr(error)
    else:
        told = where.url, repr(where)
    for secret in (SECRET, QUOTED, "s3cr"):
        assert not [text for text in told if secret in text], told


def test_unknown_parameters_are_refused_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match=r"unknown parameter 'pool'.*schema"):
        parse_url("postgresql://h/db?pool=3")


def test_an_url_that_is_shown_stays_as_it_is() -> None:
    assert shown(shown("postgresql://u:p@h/db")) == "postgresql://u:***@h/db"
    assert shown("sqlite:///a:b@c.db") == "sqlite:///a:b@c.db"
    for url in ("postgresql:///db", "postgresql:///", "postgresql://?schema=s", "redis://"):
        assert parse_url(url).url == url
    assert parse_url("postgresql://u:p@h/db").url == "postgresql://u:***@h/db"


def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.backends.find_spec", lambda name: None)
    for url, extra in (("postgresql://h/db", "postgres"), ("redis://h", "redis")):
        with pytest.raises(Unavailable, match=rf"pip install 'holdfast\[{extra}\]'"):
            open_backend(url, bytes.decode)
    require_all = importlib.util.find_spec  # the real one finds what the tests need
    monkeypatch.setattr("holdfast.backends.find_spec", require_all)
    require("psycopg", "postgres")


def test_a_store_does_not_know_its_password() -> None:
    memory = holdfast.open("memory://")
    with memory:
        storage = Storage(f"postgresql://ann:{QUOTED}@h/db", backend=memory.backend)
        assert storage.url == "postgresql://ann:***@h/db"
