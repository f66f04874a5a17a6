"""The ledger on a real disk: durable, ordered, alone in its folder, and clear when it cannot write."""

import asyncio
import sqlite3
import stat
from pathlib import Path

import msgspec
import pytest

from factories import contract, key
from lading_contracts.port import Signed
from lading_node.core.channel import ChannelId
from lading_node.core.sending import Sending
from lading_node.disk import Identity
from lading_node.errors import DiskFull, FolderBusy, LedgerBusy, LedgerError
from lading_node.store import ATTEMPT_SECONDS, AttemptRow, Ledger, Redemption, Vote, peek
from lading_protocol.eip712 import Domain
from lading_protocol.ids import AgentId, Digest, JobId, TermsId, Wei
from lading_protocol.receipts import Lock as LockPaper
from lading_protocol.receipts import SignedLock, SignedVoucher
from lading_protocol.receipts import Voucher as VoucherPaper

ME = Identity(key("host").address, 1337, contract("settlement"))
DOMAIN = Domain(1337, contract("settlement"))
ID = ChannelId(key("payer").address, TermsId(b"\xbb" * 32), 0)
PEER = key("gateway").address


def voucher(cumulative: int) -> SignedVoucher:
    return VoucherPaper(ME.operator, ID.terms, 0, cumulative).sign(DOMAIN, key("payer"))


def lock(cumulative: int) -> SignedLock:
    return LockPaper(ME.operator, ID.terms, 0, cumulative).sign(DOMAIN, key("payer"))


def attempt(number: int, amount: int, finish: int = 2, receipt: bytes = b"") -> AttemptRow:
    return AttemptRow(
        JobId(b"\x01" * 32), number, ID, AgentId(b"\xaa" * 32), 3, Wei(amount), finish, "", receipt, 5.0 + number
    )


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger.open(tmp_path, ME)
        await ledger.put_voucher(ID, voucher(2**95), PEER, 10.0)
        await ledger.put_lock(ID, lock(7), PEER)
        await ledger.see_chain(ID, 7, 3, True)
        ledger.note_attempt(attempt(0, 9, receipt=b"r" * 65), Wei(9), PEER)
        ledger.note_attempt(attempt(0, 11), Wei(11), PEER)
        await ledger.follow(b"c", None, [Redemption(7, 1, Digest(b"t" * 32), ID.terms, 0, 2, Wei(3), 20.0)])
        await ledger.close()
        again = Ledger.open(tmp_path, ME)
        (row,) = await again.channels()
        assert row.voucher == voucher(2**95)
        assert row.lock == lock(7)
        assert (row.peer, row.earned, row.locked, row.redeemed, row.closing) == (PEER, 11, 7, 3, True)
        (kept,) = await again.attempts()
        assert (kept.amount, kept.receipt) == (11, b"r" * 65)  # a later note without a receipt keeps the last one
        assert [one.amount for one in await again.redemptions()] == [3]
        assert await again.note("cursor") == b"c"
        assert await again.seen(b"\x01" * 32, 0)
        assert not await again.seen(b"\x01" * 32, 1)
        await again.close()
        assert peek(tmp_path) == [row]

    asyncio.run(main())


def test_the_channels_that_are_due_are_those_with_something_for_the_chain() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)

        async def due() -> bool:
            return bool(await ledger.due())

        await ledger.see_chain(ID, 0, 0, False)
        assert not await due()
        await ledger.put_lock(ID, lock(2**90), PEER)
        assert await due()
        await ledger.see_chain(ID, 2**90, 0, False)
        assert not await due()
        await ledger.put_voucher(ID, voucher(300), PEER, 1.0)
        assert await ledger.due() == await ledger.channels()
        await ledger.see_chain(ID, 2**90, 299, False)
        assert await due()
        await ledger.see_chain(ID, 2**90, 300, False)
        assert not await due()
        await ledger.see_chain(ID, 2**90 - 1, 300, False)  # the chain took a block back
        assert await due()
        await ledger.close()

    asyncio.run(main())


def test_an_attempt_is_forgotten_when_two_receipts_for_it_prove_nothing_any_more() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)
        cut = attempt(0, 9, finish=0)
        for number in range(1, 6):
            ledger.note_attempt(attempt(number, 9), Wei(9), PEER)
        ledger.note_attempt(cut, Wei(9), PEER)

        async def kept() -> list[float]:
            await ledger.flush()
            return sorted(one.at for one in await ledger.attempts())

        async def note(number: int, at: float) -> None:
            again = msgspec.structs.replace(attempt(number, 9), at=at)
            ledger.note_attempt(again, Wei(9), PEER)

        late = 5.0 + 4 + ATTEMPT_SECONDS
        await note(10, late - 3)
        assert await kept() == [5, 6, 7, 8, 9, 10, late - 3], "the oldest is not old enough"
        await note(11, late)
        assert await kept() == [5, 8, 9, 10, late - 3, late], "two at a time"
        await note(12, late)
        await note(13, late)
        assert await kept() == [5, 9, 10, late - 3, late, late, late]
        assert not await ledger.seen(b"\x02" * 32, 1)
        ids = await ledger.interrupted()
        assert ids == [ID], "what a crash cut off stays until its payer was asked"
        await ledger.close()

    asyncio.run(main())


def redemption(block: int, log: int = 0, amount: int = 5) -> Redemption:
    return Redemption(block, log, Digest(bytes([block]) * 32), ID.terms, 0, 1, Wei(amount), 20.0)


def test_the_book_of_redemptions_moves_with_the_cursor_back_and_forth() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)
        await ledger.follow(b"7", None, [redemption(5), redemption(7), redemption(7, 1)])
        await ledger.follow(b"7", None, [redemption(7, 1)])  # a batch that is taken again changes nothing
        assert [(one.block, one.log) for one in await ledger.redemptions()] == [(5, 0), (7, 0), (7, 1)]
        await ledger.follow(b"8", 6, [redemption(8, amount=9)])
        assert [(one.block, one.amount) for one in await ledger.redemptions()] == [(5, 5), (8, 9)]
        assert await ledger.note("cursor") == b"8"
        await ledger.follow(b"0", 0, [])
        assert await ledger.redemptions() == []
        await ledger.close()

    asyncio.run(main())


def test_what_is_on_its_way_is_there_after_a_restart_until_it_is_dropped(tmp_path: Path) -> None:
    async def main() -> None:
        signed = Signed(b"raw", Digest(b"h" * 32), 4)
        rows = ((ID.signer, 2**95),)
        sent = Sending(3, ID.terms, 0, (), rows, 9.0, (signed, signed), 11.0, 7, Digest(b"b" * 32))
        ledger = Ledger.open(tmp_path, ME)
        await ledger.put_sending(Sending(3, ID.terms, 0, (), rows, 9.0))
        await ledger.put_sending(sent)
        await ledger.close()
        again = Ledger.open(tmp_path, ME)
        assert await again.sendings() == [sent]
        await again.drop_sending(sent)
        assert await again.sendings() == []
        await again.close()

    asyncio.run(main())


def test_a_ledger_with_the_old_book_reads_the_chain_again(tmp_path: Path) -> None:
    """The old book had one row a transaction of ours, and could not follow a reorganisation."""

    async def main() -> None:
        await Ledger.open(tmp_path, ME).close()
        with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
            db.executescript(
                "drop table redemptions; create table redemptions (tx blob primary key, amount blob) without rowid;"
                "insert into redemptions values (x'01', x'02'); insert into meta values ('cursor', x'03');"
            )
        db.close()
        ledger = Ledger.open(tmp_path, ME)
        assert await ledger.redemptions() == []
        assert await ledger.note("cursor") is None
        await ledger.follow(b"c", None, [redemption(5)])
        await ledger.close()
        again = Ledger.open(tmp_path, ME)
        assert len(await again.redemptions()) == 1
        await again.close()

    asyncio.run(main())


def test_vouchers_only_grow_and_the_age_is_that_of_the_oldest_unredeemed() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)
        for cumulative, now in ((5, 1.0), (300, 2.0), (300, 3.0), (299, 4.0)):
            await ledger.put_voucher(ID, voucher(cumulative), PEER, now)
        (row,) = await ledger.channels()
        assert (row.signed, row.changed) == (300, 1.0)
        await ledger.see_chain(ID, 1000, 300, False)
        await ledger.put_voucher(ID, voucher(301), PEER, 9.0)
        (row,) = await ledger.channels()
        assert (row.signed, row.changed) == (301, 9.0)
        await ledger.close()

    asyncio.run(main())


def test_interrupted_attempts_are_known_until_their_payer_was_asked() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)
        ledger.note_attempt(attempt(0, 0, finish=0), Wei(0), PEER)
        ledger.note_attempt(attempt(1, 4, finish=1), Wei(4), PEER)
        await ledger.flush()
        assert await ledger.interrupted() == [ID]
        await ledger.close_interrupted(ID, before=100.0)
        assert await ledger.interrupted() == []
        assert {row.finish for row in await ledger.attempts()} == {4, 1}
        await ledger.close()

    asyncio.run(main())


def test_a_second_daemon_is_told_who_works_there(tmp_path: Path) -> None:
    async def main() -> None:
        first = Ledger.open(tmp_path, ME)
        with pytest.raises(FolderBusy, match=r"process \d+"):
            Ledger.open(tmp_path, ME)
        await first.close()
        await Ledger.open(tmp_path, ME).close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "other",
    [
        Identity(key("another").address, 1337, contract("settlement")),
        Identity(ME.operator, 5, contract("settlement")),
        Identity(ME.operator, 1337, contract("newer settlement")),
    ],
)
def test_a_ledger_of_another_key_or_network_is_refused(tmp_path: Path, other: Identity) -> None:
    async def main() -> None:
        await Ledger.open(tmp_path, ME).close()
        with pytest.raises(LedgerError, match="this node is another"):
            Ledger.open(tmp_path, other)
        await Ledger.open(tmp_path, ME).close()

    asyncio.run(main())


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger.open(tmp_path, ME)
        await ledger.put_voucher(ID, voucher(5), PEER, 1.0)
        pages = ledger._db.execute("pragma page_count").fetchone()[0]
        ledger._db.execute(f"pragma max_page_count={pages}")
        with pytest.raises(DiskFull, match="full"):
            await ledger.put_note("hog", b"x" * 100_000)
        assert "full" in ledger.trouble
        writing = asyncio.ensure_future(ledger.put_voucher(ID, voucher(6), PEER, 2.0))
        await asyncio.sleep(0)
        ledger._db.execute("pragma max_page_count=100000")
        await writing
        await ledger.flush()
        assert ledger.trouble == ""
        assert len(await ledger.note("hog") or b"") == 100_000
        (row,) = await ledger.channels()
        assert row.signed == 6
        await ledger.close()

    asyncio.run(main())


def test_a_locked_database_is_said_and_written_when_it_is_free(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = Ledger.open(tmp_path, ME, busy_seconds=0.05)
        other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        other.execute("begin immediate")
        with pytest.raises(LedgerBusy, match="locked"):
            await ledger.put_voucher(ID, voucher(5), PEER, 1.0)
        other.execute("rollback")
        other.close()
        await ledger.flush()
        (row,) = await ledger.channels()
        assert row.signed == 5
        await ledger.close()

    asyncio.run(main())


def test_many_writes_share_few_commits() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)
        commits = 0

        def count(statement: str) -> None:
            nonlocal commits
            commits += statement == "commit"

        ledger._db.set_trace_callback(count)
        await asyncio.gather(*(ledger.put_voucher(ID, voucher(n + 1), PEER, 1.0) for n in range(50)))
        assert 1 <= commits <= 3
        await ledger.close()

    asyncio.run(main())


def test_a_vote_is_never_overwritten() -> None:
    async def main() -> None:
        ledger = Ledger.open(None, ME)
        vote = Vote(Digest(b"d" * 32), 0, 2, Digest(b"e" * 32), b"s" * 32, b"f", "decided", 1.0)
        await ledger.put_vote(vote)
        await ledger.put_vote(Vote(vote.dispute, 0, 1, Digest(b"x" * 32), b"y" * 32, b"z", "committed", 2.0))
        (kept,) = await ledger.votes()
        assert (kept.verdict, kept.salt, kept.stage) == (2, b"s" * 32, "committed")
        await ledger.close()

    asyncio.run(main())


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger.open(tmp_path / "file" / "below", ME)


def test_the_folder_is_the_owners_only(tmp_path: Path) -> None:
    async def main() -> None:
        await Ledger.open(tmp_path / "new", ME).close()

    asyncio.run(main())
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
