"""What the ledger forgets, in which order, and what it keeps for an audit."""

import pytest

from factories import NOW, key, known_offer
from lading_coordinator import forgetting
from lading_coordinator.audits.records import Drawn, Pick, Records, Turn
from lading_net.clock import run_virtual
from lading_protocol.audit import Verdict
from lading_protocol.ids import Digest
from lading_protocol.messages import Finding
from lading_protocol.receipts import packed_leaf
from lading_protocol.transcript import merkle_root
from unit.coordinator.accounts import Clock, ended, opened


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
