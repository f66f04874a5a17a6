"""What only a server has: it goes away and comes back, holds one coordinator out, refuses words, and has an address."""

import ast
import asyncio
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import lading_coordinator
from lading_coordinator.errors import FolderBusy, LedgerFailed
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.postgres import PostgresStore, layouts, shown, translated
from lading_coordinator.store import STEPS, Store
from postgres_server import Server, postgres
from unit.coordinator.accounts import Clock, ended


@pytest.fixture(scope="module")
def mortal() -> Iterator[Server]:
    """A server that a test may stop."""
    with postgres() as server:
        yield server


def written(store: Store) -> int:
    return int(store.rows("select count(*) from jobs")[0][0])


def test_records_wait_while_the_server_is_away(mortal: Server) -> None:
    """It is cut off in the middle and comes back: reading says so at once, and no record is lost or doubled."""

    async def story() -> None:
        store = PostgresStore(mortal.url())
        ledger = Ledger(store, Metrics(), time.time)
        writer = asyncio.create_task(ledger.run())
        for i in range(20):
            ledger.record(ended(f"before {i}", 2))
        await ledger.flush()
        mortal.stop()
        for i in range(20):
            ledger.record(ended(f"during {i}", 2))
            await asyncio.sleep(0.01)
        began = time.monotonic()
        with pytest.raises(LedgerFailed, match="cannot be read"):
            ledger.recent(5)
        assert time.monotonic() - began < 0.2
        mortal.start()
        for _ in range(100):
            await asyncio.sleep(0.1)
            try:
                await ledger.flush()
                break
            except LedgerFailed:
                continue
        assert written(store) == 40
        assert len(ledger.recent(100)) == 40
        writer.cancel()
        store.close()

    asyncio.run(story())


def test_one_coordinator_at_a_time(database: Server) -> None:
    url = database.url()
    first = PostgresStore(url)
    with pytest.raises(FolderBusy, match="Another coordinator"):
        PostgresStore(url)
    PostgresStore(url, exclusive=False).close()
    first.close()
    for _ in range(50):
        try:
            PostgresStore(url).close()
            break
        except FolderBusy:  # the server notices a moment later that the first one is gone
            time.sleep(0.1)
    else:
        raise AssertionError("the lock outlived its holder")


def test_words_with_a_zero_character_are_kept(database: Server) -> None:
    store = PostgresStore(database.url())
    row, other = (b"1" * 20, 5, "a \0 reason", 1.5), (b"2" * 20, 5, "\0", 1.5)
    store.write([("insert or ignore into suspects values (?,?,?,?)", row)])
    store.insert({"suspects": [row, other], "standing": []})
    kept = [(b"1" * 20, 5, "a \ufffd reason", 1.5), (b"2" * 20, 5, "\ufffd", 1.5)]
    assert store.rows("select * from suspects order by host") == kept
    store.close()


@pytest.mark.parametrize("kind", ["file", "server"])
def test_older_tables_go_through_the_steps(kind: str, tmp_path: Path, database: Server) -> None:
    where = str(tmp_path / "a.sqlite") if kind == "file" else database.url()
    steps = ("alter table standing add column note text not null default 'none';", "create table more (n integer);")

    def opened(count: int) -> Store:
        for _ in range(50):
            try:
                return (Store if kind == "file" else PostgresStore)(where, steps=steps[:count])
            except FolderBusy:
                time.sleep(0.1)
        raise AssertionError("busy")

    store = opened(0)
    store.write([("insert into standing values (?,?)", (b"host", b"owner"))])
    store.close()
    for count in (1, 2, 2):
        store = opened(count)
        assert store.rows("select * from standing") == [(b"host", b"owner", "none")]
        assert store.has_table("more") == (count == 2)
        store.close()
    with pytest.raises(LedgerFailed, match="newer version"):
        opened(1)


def test_a_step_that_fails_leaves_everything_as_it_was(database: Server, tmp_path: Path) -> None:
    url = database.url()
    PostgresStore(url).close()
    bad = (*STEPS, "alter table standing add column note text; alter table nowhere add column x text;")
    for _ in range(50):
        try:
            with pytest.raises(LedgerFailed):
                PostgresStore(url, steps=bad)
            break
        except FolderBusy:
            time.sleep(0.1)
    file = tmp_path / "a.sqlite"
    Store(file).close()
    with pytest.raises(LedgerFailed):
        Store(file, steps=bad)
    store = Store(file)
    assert store.rows("select * from written_by") == [(0, len(STEPS))]
    store.write([("insert into standing values (?,?)", (b"host", b"owner"))])
    store.close()


def test_two_threads_share_the_connection(database: Server) -> None:
    store = PostgresStore(database.url())
    wrong: list[Exception] = []

    def work(name: int) -> None:
        try:
            for i in range(50):
                key = b"%d %d" % (name, i)
                store.write([("insert into standing values (?,?)", (key, b"x"))])
                assert store.rows("select host from standing where host=?", (key,)) == [(key,)]
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert store.rows("select count(*) from standing") == [(200,)]
    store.close()


def test_an_address_that_does_not_answer_is_one_line_without_the_password() -> None:
    with pytest.raises(LedgerFailed) as caught:
        PostgresStore("postgresql://me:secret@127.0.0.1:9/db")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in caught.value.message
    assert "\n" not in caught.value.message
    assert shown("postgresql://me:s3@h/db?x=1") == "postgresql://me:***@h/db?x=1"


def statements() -> list[str]:
    """Every constant statement in the package."""
    found = []
    for path in Path(lading_coordinator.__file__).parent.rglob("*.py"):
        if path.name in ("store.py", "postgres.py"):
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        # What is put together from pieces is run by the stories.
        pieces = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in pieces:
                found += re.findall(r"(?s)^(?:select|update|delete|insert)\s[a-z0-9_ ]+\s.*", node.value)
    return found


def test_every_statement_is_understood(database: Server) -> None:
    url, texts = database.url(), statements()
    assert len(texts) > 50
    PostgresStore(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        for number, text in enumerate(texts):
            if "select" not in text and "values" not in text and " where " not in text and " set " not in text:
                continue
            connection.execute(f"prepare s{number} as ".encode() + translated(text))


def test_the_tables_as_they_are_declared() -> None:
    tables = layouts()
    assert tables["parts"][1] == ["job", "attempt"]
    assert tables["rounds"][1] == ["n"]
    assert tables["standing"] == (["host", "owner"], ["host"])
    assert tables["written_by"] == (["id", "step"], ["id"])
    assert all(columns and key for columns, key in tables.values())
    assert translated("select a from b where c=?1 and d=?1") == b"select a from b where c=$1 and d=$1"
    assert translated("insert or replace into standing values (?,?)") == (
        b"insert into standing (host, owner) values ($1,$2) on conflict (host) do update set owner=excluded.owner"
    )
    assert translated("insert or replace into draws (n, secret) values (?,?)").endswith(
        b"beacon=default, beacon_round=default, due=default, value=default, source=default"
    )
    assert Clock()() > 0
