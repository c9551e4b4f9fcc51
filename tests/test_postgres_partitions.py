"""A store whose tables were cut into partitions by session, as docs/SCALING.md says, is the same store."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

import holdfast
from holdfast import user
from servers import postgres

pytestmark = pytest.mark.server
SCALING = Path(__file__).parent.parent / "docs" / "SCALING.md"


def test_a_store_in_partitions_goes_on() -> None:
    (script,) = re.findall(r"```sql\n(.*?)```", SCALING.read_text("utf-8"), re.DOTALL)
    url = postgres.url()
    schema = url.rpartition("schema=")[2]
    with holdfast.open(url) as store, psycopg.connect(url.partition("?")[0], autocommit=True) as db:
        session = store.create("before", labels=["kept"])
        session.append(user("hello there"), key="k")
        assert len(store.search("hello").items) == 1
        db.execute(script.replace("holdfast", schema))
        cut = db.execute(
            "SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent "
            "WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'p'",
            (schema,),
        ).fetchone()
        assert cut == (64,)
        assert session.append(user("hello there"), key="k").last == 1
        for n in range(30):
            store.create(f"s{n}", labels=["kept"]).append(user(f"hello again {n}"))
        assert [info.id for info in store.sessions(limit=3)] == ["s29", "s28", "s27"]
        assert len(store.sessions(label="kept", limit=100).items) == 31
        assert len(store.search("hello", limit=100).items) == 31
        assert len(store.search('"again 7"').items) == 1
        session.remove_last()
        store.delete("s3")
        assert len(store.search("hello", limit=100).items) == 29
        store.compact()
        assert store.backend.verify() == []
    with holdfast.open(url) as store:
        assert len(store.sessions(limit=100).items) == 30
