"""The ledger and its file: groups, a full disk, and the lock on the folder."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from factories import NOW, job_id, key
from lading_coordinator import forgetting
from lading_coordinator.audits.orders import Orders
from lading_coordinator.audits.records import Drawn, Pick, Records
from lading_coordinator.core.standing import Seat
from lading_coordinator.errors import FolderBusy, LedgerFailed
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.store import FolderLock, Store
from lading_net.clock import run_virtual
from lading_protocol.ids import Wei
from lading_protocol.receipts import packed_leaf
from lading_protocol.transcript import merkle_root
from unit.coordinator.accounts import REQUEST, Clock, again, ended, opened


def test_amounts_beyond_64_bits_and_parts_survive_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        store, ledger = opened(tmp_path / "a.sqlite")
        done = ended("one", 3, 5)
        ledger.record(done)
        row = await ledger.job(done.job)
        assert row is not None
        assert row.cost == done.cost == 2 * 10**30 + 8
        assert [(part.first, part.tokens) for part in row.parts] == [(0, 3), (3, 5)]
        store.close()
        clock = Clock()
        clock.now += 1
        store, again = opened(tmp_path / "a.sqlite", clock)
        assert await again.job(done.job) == row
        assert again.earned() == {}
        clock.now += 1
        late = ended("two", 2)
        again.record(late)
        await again.flush()
        await again.count()
        assert again.earned() == {key("host").address: (10, done.cost + late.cost)}
        assert await again.job(job_id("other")) is None
        store.close()

    run_virtual(story())


def test_what_hosts_have_earned_is_counted_while_other_processes_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "PIECE", 2)

    async def story() -> None:
        clock = Clock()
        store, writer = opened(tmp_path / "a.sqlite", clock)
        desk = Ledger(store, Metrics(), clock, shared=True)
        counting = asyncio.create_task(desk.count())
        jobs = [ended(f"job {number}", 2) for number in range(7)]
        for done in jobs:
            writer.record(done)
            await writer.flush()
            clock.now += 1
            await asyncio.sleep(1)
        await asyncio.sleep(30)
        clock.now += 30
        await asyncio.sleep(30)
        expected = {key("host").address: (14, Wei(sum(done.cost for done in jobs)))}
        assert desk.earned() == writer.earned() == expected
        counting.cancel()
        store.close()

    run_virtual(story())


def test_a_case_holds_the_tokens_up_to_the_end_of_its_attempt() -> None:
    async def story() -> None:
        store, ledger = opened(":memory:")
        done = ended("one", 3, 5)
        ledger.record(done)
        await ledger.flush()
        for part, end in zip(done.parts, (3, 8), strict=True):
            case = ledger.case(packed_leaf(part.receipt), done.job)
            assert case is not None
            assert case.emitted == tuple(range(end))
            assert case.request == REQUEST
        assert ledger.case(b"\x01" * 32, done.job) is None
        assert ledger.case(packed_leaf(done.parts[0].receipt), job_id("other")) is None
        store.close()

    run_virtual(story())


class FullDisk(Store):
    """A store whose disk can be full: a condition of the machine that tests cannot make otherwise."""

    full = False

    def insert(self, rows: object) -> None:
        if self.full:
            raise LedgerFailed("The ledger cannot be written: database or disk is full.")
        super().insert(rows)  # type: ignore[arg-type]


def test_a_full_disk_delays_records_and_loses_none() -> None:
    async def story() -> None:
        store = FullDisk(":memory:")
        ledger = Ledger(store, Metrics(), Clock())
        writer = asyncio.create_task(ledger.run())
        store.full = True
        for i in range(5):
            ledger.record(ended(f"job {i}", 2))
            await asyncio.sleep(0.1)
        with pytest.raises(LedgerFailed):
            await ledger.flush()
        store.full = False
        await asyncio.sleep(5)
        assert len(ledger.recent(10)) == 5
        writer.cancel()
        store.close()

    run_virtual(story())


def test_a_receipt_is_found_by_its_audit_whichever_way_it_came_to_be_audited() -> None:
    """Drawn with its round; ordered after its round was drawn; ordered and in no round at all."""

    async def story() -> None:
        clock = Clock()
        store, ledger = opened(":memory:", clock)
        records = Records(store, clock)
        orders = Orders(store, ledger, records, clock)
        drawn, late = ended("drawn", 3), ended("late", 4)
        done = [drawn, late]
        leaves = {one.job: packed_leaf(one.parts[0].receipt) for one in done}
        for one in done:
            ledger.record(one)
        await ledger.flush()
        assert ledger.anchored(leaves[drawn.job], drawn.job) is None
        first = records.seal(merkle_root, bytes(32))
        assert first is not None
        picks = [Pick(*row) for row in records.leaves(first.n)]
        records.drawn(first.n, [one for one in picks if one.leaf == leaves[drawn.job]], Drawn(b"\x01" * 32, b"", ""))

        new = ended("new", 5)
        ledger.record(new)
        leaves[new.job] = packed_leaf(new.parts[0].receipt)
        await ledger.flush()
        seat = Seat(b"", key("session"), key("payer").address, NOW)
        for one in (late, new):
            assert (await orders.buy(seat, one.job)).receipts == (leaves[one.job],)
        store.write([("update orders set round=2", ())])
        assert {pick.leaf for pick in orders.picks(2)} == {leaves[late.job], leaves[new.job]}
        assert ledger.receipt(leaves[new.job]) is not None, "it is ordered"
        records.drawn(2, orders.picks(2), Drawn(b"\x02" * 32, b"", ""))

        for one in (drawn, late, new):
            leaf = leaves[one.job]
            assert ledger.job_of(leaf) == one.job
            assert ledger.payer(leaf) == one.payer
            case, signed = ledger.case(leaf), ledger.receipt(leaf)
            assert case is not None
            assert signed is not None
            assert case.receipt == signed.pack() == one.parts[0].receipt
        assert [ledger.anchored(leaves[one.job], one.job) for one in (drawn, late, new)] == [1, 1, None]
        store.write([("update parts set round=1", ())])  # nothing else keeps the evidence
        clock.now += 500
        await ledger.prune()
        assert all(ledger.case(leaf) is not None for leaf in leaves.values()), "their audits are pending"
        store.close()

    run_virtual(story())


def test_rounds_take_every_receipt_once() -> None:
    async def story() -> None:
        store, ledger = opened(":memory:")
        records = Records(store, Clock())
        assert records.seal(merkle_root, bytes(32)) is None
        for i in range(3):
            ledger.record(ended(f"job {i}", 1, 2))
        await ledger.flush()
        first = records.seal(merkle_root, bytes(32))
        assert first is not None
        assert first.leaves == 7, "six receipts and the commitment to the round's secret"
        assert {leaf for leaf, _, _ in records.leaves(first.n)} < set(records.tree(first.n))
        assert first.root == merkle_root(records.tree(first.n))
        assert records.seal(merkle_root, bytes(32)) is None
        ledger.record(ended("late", 4))
        await ledger.flush()
        second = records.seal(merkle_root, bytes(32))
        assert second is not None
        assert (second.n, second.leaves) == (2, 2)
        store.close()

    run_virtual(story())


def test_a_group_is_written_whole_or_not_at_all() -> None:
    store = Store(":memory:")
    with pytest.raises(LedgerFailed):
        store.write([("insert into standing values (?,?)", (b"1", b"2")), ("insert into nowhere values (1)", ())])
    assert store.rows("select * from standing") == []
    store.close()


def test_a_file_that_is_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"this is no database at all, whatever its name says" * 50)
    with pytest.raises(LedgerFailed):
        Store(path)
    assert sqlite3.sqlite_version


def test_an_older_ledger_loses_the_indexes_that_were_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    Store(path).close()
    with closing(sqlite3.connect(path)) as older:
        older.execute("delete from written_by")
        older.execute("create index parts_by_round on parts (round)")
        older.execute("create index parts_to_anchor on parts (job, attempt) where round is null and leaf is not null")
        older.commit()
        older.execute("create index parts_by_leaf on parts (leaf)")
        older.execute("create index parts_in_round on parts (round) where round is not null")
        older.execute("alter table orders drop column job")
        older.commit()
    store = Store(path)
    named = {name for (name,) in store.rows("select name from sqlite_master where type='index' and tbl_name='parts'")}
    assert {name for name in named if not name.startswith("sqlite")} == {
        "parts_of_round",
        "parts_in_none",
    }
    store.close()


def test_an_older_ledger_still_finds_what_was_ordered(tmp_path: Path) -> None:
    """Its orders say nothing of their jobs."""

    async def story() -> None:
        clock, path = Clock(), tmp_path / "a.sqlite"
        store, ledger = opened(path, clock)
        done = ended("one", 3, 4)
        ledger.record(done)
        await ledger.flush()
        leaf = packed_leaf(done.parts[1].receipt)
        store.script(
            "update written_by set step=1; alter table orders drop column job; drop index parts_of_round;"
            "create index parts_by_leaf on parts (leaf);"
            "create index parts_in_round on parts (round) where round is not null;"
        )
        for each in (leaf, b"\x09" * 32):  # one of them of a job that is not kept any more
            store.write([("insert into orders values (?,?,1,?)", (each, key("session").address, NOW))])
        store.close()
        for _ in range(2):
            store, ledger = opened(path, clock)
            orders = Orders(store, ledger, Records(store, clock), clock)
            (pick,) = orders.picks(1)
            assert (pick.leaf, pick.host) == (leaf, key("host").address)
            case = ledger.case(leaf)
            assert case is not None
            assert case.receipt == done.parts[1].receipt
            store.close()

    run_virtual(story())


def test_the_records_of_a_moment_stand_side_by_side(tmp_path: Path) -> None:
    """However many there are already: a page of the log for each would be the most that a record costs."""

    async def story() -> None:
        clock, path, chance = Clock(), tmp_path / "a.sqlite", random.Random(7)
        done = ended("one", 3)
        store, ledger = opened(path, clock)

        async def group(count: int) -> None:
            for _ in range(count):
                clock.now += 0.001
                ledger.record(again(done, clock.now, chance))
            await ledger.flush()

        for _ in range(5):
            await group(1000)
        with closing(sqlite3.connect(path)) as other:
            other.execute("pragma wal_checkpoint(truncate)")
            await group(200)
            size = other.execute("pragma page_size").fetchone()[0]
            pages = (tmp_path / "a.sqlite-wal").stat().st_size / (24 + size)
        assert pages < 115
        store.close()

    run_virtual(story())


def test_one_daemon_on_a_folder(tmp_path: Path) -> None:
    held = FolderLock(tmp_path / "home")
    with pytest.raises(FolderBusy) as caught:
        FolderLock(tmp_path / "home")
    assert str(tmp_path) in caught.value.message
    held.release()
    FolderLock(tmp_path / "home").release()
