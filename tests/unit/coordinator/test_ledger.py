"""The ledger and its file: groups, a full disk, retention, and the lock on the folder."""

import asyncio
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from factories import NOW, chat_request, job_id, key, known_offer, network
from lading.dispatch import Ended, Part
from lading_coordinator import forgetting
from lading_coordinator.audits.orders import Orders
from lading_coordinator.audits.records import Drawn, Pick, Records, Turn
from lading_coordinator.core.standing import Seat
from lading_coordinator.errors import FolderBusy, LedgerFailed
from lading_coordinator.forgetting import Retention
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.store import FolderLock, Store
from lading_net.clock import run_virtual
from lading_protocol.audit import Verdict
from lading_protocol.ids import JOB_CHANCE, Address, Digest, JobId, Wei, new_job
from lading_protocol.messages import Finding, request_hash
from lading_protocol.receipts import Finish, Receipt, SignedReceipt, packed_leaf
from lading_protocol.transcript import merkle_root

REQUEST = chat_request()


def receipt(job: JobId, attempt: int, first: int, count: int) -> SignedReceipt:
    offer = known_offer(key("host")).offer
    value = Receipt(
        job=job,
        attempt=attempt,
        request=request_hash(REQUEST),
        agent=offer.agent,
        terms=offer.terms,
        host=offer.host,
        signer=key("session").address,
        epoch=0,
        first=first,
        prompt_tokens=4,
        output_tokens=count,
        prompt_hash=bytes(32),
        commitment=bytes(32),
        price_in=1,
        price_out=1,
        amount=1,
        finish=1,
        issued_at=int(NOW),
    )
    return value.sign(network().court_domain, key("host"))


def ended(label: str, *cuts: int) -> Ended:
    """A job whose attempts ended at these token counts."""
    job, parts, first = job_id(label), [], 0
    for attempt, count in enumerate(cuts):
        signed = receipt(job, attempt, first, count).pack()
        parts.append(
            Part(key("host").address, known_offer(key("host")), attempt, first, count, Wei(10**30 + count), signed)
        )
        first += count
    return Ended(
        job=job,
        request=REQUEST,
        agent=known_offer(key("host")).agent,
        payer=key("payer").address,
        signer=key("session").address,
        finish=Finish.STOP,
        prompt_tokens=4,
        prompt_hash=bytes(32),
        emitted=tuple(range(first)),
        vectors=b"",
        parts=tuple(parts),
    )


def again(done: Ended, now: float, chance: random.Random) -> Ended:
    """The same again as the gateway would name it, of a payer of its own and with a receipt like no other."""
    (part,) = done.parts
    other = msgspec.structs.replace(part, receipt=chance.randbytes(len(part.receipt)))
    job, signer = new_job(now, chance.randbytes(JOB_CHANCE)), Address(chance.randbytes(20))
    return msgspec.structs.replace(done, job=job, signer=signer, parts=(other,))


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def opened(path: Path | str, clock: Clock | None = None) -> tuple[Store, Ledger]:
    store = Store(path)
    return store, Ledger(store, Metrics(), clock or Clock(), Retention(evidence=100, records=1000))


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


def test_evidence_goes_first_and_never_while_an_audit_needs_it() -> None:
    async def story() -> None:
        clock = Clock()
        store, ledger = opened(":memory:", clock)
        records = Records(store, clock)
        done = ended("one", 3)
        ledger.record(done)
        await ledger.flush()
        leaf = packed_leaf(done.parts[0].receipt)
        clock.now += 500
        await ledger.prune()
        assert ledger.case(leaf, done.job) is not None, "not anchored yet"
        made = records.seal(merkle_root, bytes(32))
        assert made is not None
        records.drawn(made.n, [Pick(*row) for row in records.leaves(made.n)], Drawn(b"\x01" * 32, b"", "a test"))
        await ledger.prune()
        assert ledger.case(leaf) is not None, "its audit is pending"
        records.conclude(leaf, "done", records.audits()[0].verdict, "")
        await ledger.prune()
        assert ledger.case(leaf) is ledger.case(leaf, done.job) is None
        assert len(ledger.recent(5)) == 1
        clock.now += 5000
        await ledger.prune()
        assert ledger.recent(5) == []
        store.close()

    run_virtual(story())


def test_old_jobs_are_forgotten_a_piece_at_a_time_and_those_of_one_moment_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "PIECE", 3)

    async def story() -> None:
        clock = Clock()
        store, ledger = opened(":memory:", clock)
        for group in (1, 2, 7, 1, 4):
            for number in range(group):
                ledger.record(ended(f"{clock.now} {number}", 2, 1))
            await ledger.flush()
            clock.now += 10
        store.write([("update parts set round=1", ())])  # anchored, and none of them drawn

        def kept() -> tuple[int, ...]:
            evidence = "select count(*) from jobs where request is not null"
            counts = evidence, "select count(*) from jobs", "select count(*) from parts"
            return tuple(store.rows(sql)[0][0] for sql in counts)

        clock.now = NOW + 100 + 25  # after the third group's end
        await ledger.prune()
        assert kept() == (5, 15, 30)
        clock.now = NOW + 1000 + 15
        await ledger.prune()
        assert kept() == (0, 12, 24)
        clock.now += 1000
        await ledger.prune()
        assert kept() == (0, 0, 0)
        store.close()

    run_virtual(story())


def test_audits_are_forgotten_with_the_records_but_for_open_ones_and_those_that_found_guilt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "PIECE", 2)
    kinds = [("done", Verdict.HONEST), ("done", Verdict.UNKNOWN), ("canary", Verdict.HONEST)]
    stay = [("pending", Verdict.UNKNOWN), ("accused", Verdict.GUILTY), ("disputed", Verdict.GUILTY)]
    kinds += [*stay, ("done", Verdict.GUILTY)]
    of_audits = ("findings", "papers", "picks", "turns")

    async def story() -> None:
        clock = Clock()
        store, ledger = opened(":memory:", clock)
        records, auditor = Records(store, clock), key("auditor").address

        def audited(leaf: bytes, state: str, verdict: Verdict) -> None:
            pick = Pick(leaf, key("host").address, known_offer(key("host")).agent)
            records.drawn(1, [pick], Drawn(bytes(32), b"", "a test"))
            records.drew(leaf, Turn(0, auditor, {auditor: 1}))
            records.heard(leaf, auditor, Finding(Digest(leaf * 32), int(verdict), "tokens", "as told"))
            records.conclude(leaf, state, verdict, "")

        def kept() -> list[bytes]:
            leaves = sorted(leaf for (leaf,) in store.rows("select leaf from audits"))
            for table in of_audits:
                assert leaves == sorted(leaf for (leaf,) in store.rows(f"select leaf from {table}"))
            return leaves

        for number in range(5 * len(kinds)):
            audited(bytes([number]), *kinds[number % len(kinds)])
            clock.now += 1
        store.write([("update turns set at=at+1e6", ())])  # what only their age would drop
        await ledger.prune()
        assert len(kept()) == 5 * len(kinds)
        clock.now = NOW + 1000 + 3 * len(kinds)
        await ledger.prune()
        old = range(3 * len(kinds))
        assert kept() == [bytes([n]) for n in range(5 * len(kinds)) if n not in old or n % len(kinds) >= 3]
        clock.now += 1000
        await ledger.prune()
        assert kept() == [bytes([n]) for n in range(5 * len(kinds)) if n % len(kinds) >= 3]
        store.close()

    run_virtual(story())


def test_evidence_that_is_still_needed_stays_and_goes_later_and_too_much_of_it_keeps_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "PIECE", 2)
    monkeypatch.setattr(forgetting, "MOST_HELD", 4)

    async def story() -> None:
        clock = Clock()
        store, ledger = opened(":memory:", clock)
        jobs = [ended(f"job {number}", 2) for number in range(8)]
        leaves = [packed_leaf(one.parts[0].receipt) for one in jobs]
        for one in jobs:
            ledger.record(one)
            await ledger.flush()
            clock.now += 1

        def kept() -> list[int]:
            return [n for n, one in enumerate(jobs) if ledger.case(leaves[n], one.job) is not None]

        clock.now += 500
        await ledger.prune()
        assert kept() == list(range(8)), "none is anchored"
        anchored = "update parts set round=1 where job=?"
        store.write([(anchored, (jobs[n].job,)) for n in (1, 3, 4)])
        await ledger.prune()
        assert kept() == [0, 2, 5, 6, 7], "the rest was looked at once two of those held were free"
        ledger.keep_opening(leaves[0], b"a sketch")
        store.write([(anchored, (one.job,)) for one in jobs])
        await ledger.prune()
        assert kept() == []
        assert ledger.opening(leaves[0]) is None
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
