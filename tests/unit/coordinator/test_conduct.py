"""What the coordinator keeps of hosts, auditors, canaries and orders: over epochs, restarts, and hostile numbers."""

from pathlib import Path

import pytest

from factories import key
from lading_coordinator.audits.conduct import SUSPICION, WINDOW, Conduct, Pair
from lading_coordinator.audits.records import Appointment, Audit, Drawn, Paper, Pick, Records, Turn
from lading_coordinator.core.audits import Asked, Policy
from lading_coordinator.core.conduct import REST_AFTER, STRIKES, SUSPECT_EPOCHS, Kind
from lading_coordinator.store import Store
from lading_protocol.audit import Verdict
from lading_protocol.conduct import Honest
from lading_protocol.ids import Address, AgentId
from lading_protocol.messages import Finding

CLASS = "onnx-f32-cpu"
SAME = Pair(CLASS, CLASS)
HONEST = {str(SAME): Honest(clipped=1e-5, clipped_sd=5e-4, flips=0.003)}
HOST, AGENT = key("host").address, AgentId(b"\x05" * 32)
AUDITORS = [key(label).address for label in ("a", "b", "c")]
DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A store in a file, and what is opened on it again after a restart."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.path = path
        self.open()

    def open(self) -> None:
        self.store = Store(self.path)
        self.conduct = Conduct(self.store, self.clock, Policy(), lambda agent, pair: HONEST.get(str(pair)), DAY)
        self.records = Records(self.store, self.clock)

    def restart(self) -> None:
        self.store.close()
        self.open()

    def audited(self, n: int, verdict: Verdict, state: str = "done") -> Audit:
        leaf = n.to_bytes(32, "big")
        self.records.drawn(n, [Pick(leaf, HOST, AGENT)], Drawn(bytes(32), b"", "a test"))
        self.records.conclude(leaf, state, verdict, "")
        audit = self.records.audit(leaf)
        assert audit is not None
        return audit


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "coordinator.sqlite")


def finding(flips: int, verdict: int = 1) -> Finding:
    return Finding(bytes(32), verdict, "ok", "", 0.01, 0, 128, flips, 0.008 * flips)


def paper(auditor: int, found: Finding) -> Paper:
    return Paper(AUDITORS[auditor], found, 0.0)


def cheat(desk: Desk, start: int, count: int = 20) -> str:
    """Audits that each pass, of a host that flips twelve times as many tokens as it should."""
    for n in range(count):
        audit = desk.audited(start + n, Verdict.HONEST)
        if reason := desk.conduct.learn(audit, SAME, paper(n % 3, finding(5)), 128):
            return reason
    return ""


def test_clean_audits_lower_the_rate_and_a_fault_ends_the_row(desk: Desk) -> None:
    first = desk.conduct.rate(HOST)
    for n in range(40):
        desk.audited(n, Verdict.HONEST)
    desk.restart()
    assert desk.conduct.clean(HOST) == 40
    assert desk.conduct.rate(HOST) < first
    desk.clock.now += 1
    desk.audited(100, Verdict.GUILTY, "canary")
    assert desk.conduct.clean(HOST) == 40, "a canary says nothing about its host"
    desk.audited(101, Verdict.GUILTY)
    assert desk.conduct.rate(HOST) == first
    desk.clock.now += 1
    desk.audited(102, Verdict.HONEST)
    assert desk.conduct.clean(HOST) == 1


def test_a_pooled_cheat_is_suspect_for_a_week_and_barred_after_three_epochs_of_it(desk: Desk) -> None:
    before = desk.conduct.rate(HOST)
    assert desk.conduct.suspect(HOST) == ""
    for epoch in range(SUSPECT_EPOCHS):
        assert desk.conduct.bar(HOST) == ""
        reason = cheat(desk, 1000 * epoch)
        assert "z = " in reason
        desk.restart()
        assert desk.conduct.suspects() == {HOST: reason}
        assert desk.conduct.rate(HOST) == min(10 * before, 1_000_000)
        assert cheat(desk, 1000 * epoch + 500) == "", "suspect once an epoch"
        desk.clock.now += DAY
    assert "3 epochs" in desk.conduct.bars()[HOST]
    desk.clock.now += WINDOW * DAY
    assert desk.conduct.bar(HOST) == "", "suspicion is forgotten in the end"


def test_what_made_a_host_suspect_once_does_not_do_it_again(desk: Desk) -> None:
    assert cheat(desk, 0)
    for epoch in range(1, SUSPICION + 1):
        assert list(desk.conduct.suspects()) == [HOST]
        desk.clock.now += DAY
        audit = desk.audited(1000 * epoch, Verdict.HONEST)
        assert desk.conduct.learn(audit, SAME, paper(0, finding(0)), 128) == ""
    assert desk.conduct.suspects() == {}
    assert desk.conduct.bar(HOST) == ""


def test_unknown_classes_and_impossible_numbers_are_not_pooled(desk: Desk) -> None:
    audit = desk.audited(1, Verdict.HONEST)
    for pair, found in (
        (Pair("", CLASS), finding(1)),
        (Pair(CLASS, ""), finding(1)),
        (SAME, Finding(bytes(32), 1, "ok", "", float("nan"), 0, 128)),
        (SAME, Finding(bytes(32), 1, "ok", "", 0.0, 0, 500)),
    ):
        desk.conduct.learn(audit, pair, paper(0, found), 128)
    assert desk.store.rows("select count(*) from conduct") == [(0,)]
    other = Pair("torch-f16", CLASS)
    assert desk.conduct.learn(audit, other, paper(0, finding(128)), 128) == "", "nobody has measured the pair"


def test_remarks_rest_or_strike_off_an_auditor(desk: Desk) -> None:
    lazy, slow, odd = AUDITORS
    for n in range(REST_AFTER):
        assert desk.conduct.excluded(slow) == desk.conduct.excluded(odd) == ""
        desk.conduct.remark(slow, n.to_bytes(32, "big"), Kind.SILENT)
        desk.conduct.remark(odd, n.to_bytes(32, "big"), Kind.OUTVOTED)
    desk.conduct.remark(lazy, bytes(32), Kind.MISSED)
    framer = key("framer").address
    for n in range(STRIKES):
        assert desk.conduct.excluded(framer) == ""
        desk.conduct.remark(framer, n.to_bytes(32, "big"), Kind.OVERRULED)
        desk.conduct.remark(framer, n.to_bytes(32, "big"), Kind.OVERRULED)  # one case counts once
    desk.restart()
    assert "the court acquitted" in desk.conduct.excluded(framer)
    assert "did not answer" in desk.conduct.excluded(slow)
    assert "outvoted" in desk.conduct.excluded(odd)
    assert "known fault" in desk.conduct.excluded(lazy)
    desk.clock.now += DAY
    assert desk.conduct.excluded(slow) == desk.conduct.excluded(odd) == ""
    assert "known fault" in desk.conduct.excluded(lazy), "for good"
    assert desk.conduct.auditor(odd).outvoted == REST_AFTER


def test_a_round_keeps_its_appointment_and_its_secret_over_a_restart(desk: Desk) -> None:
    desk.store.write([("insert into orders values (?,?,null,0,null)", (b"\x01" * 32, bytes(20)))])
    made = desk.records.seal(lambda leaves: leaves[0], b"\x07" * 32)  # type: ignore[return-value, arg-type]
    assert made is not None
    waits = Appointment("drand 52db9ba70e0cc0f6", 31, 1_800_000_123.0, b"\x07" * 32)
    desk.records.anchored(made.n, 12, waits)
    desk.restart()
    assert desk.records.appointment(made.n) == waits
    assert len(desk.records.tree(made.n)) == made.leaves == 2


def test_turns_and_openings_are_kept(desk: Desk) -> None:
    leaf, stakes = b"\x01" * 32, {Address(b"\x01" * 20): 10**24, Address(b"\x02" * 20): 1}
    for turn in range(2):
        desk.records.drew(leaf, Turn(turn, Address(b"\x01" * 20), stakes))
    assert desk.records.asked(leaf) == Asked()
    desk.records.opening(leaf, opened=False)
    desk.records.opening(leaf, opened=False)
    desk.restart()
    assert desk.records.asked(leaf) == Asked(2, desk.clock.now)
    desk.records.opening(leaf, opened=True)
    desk.records.opening(leaf, opened=False)
    assert desk.records.asked(leaf).opened, "once opened, it is known"
    assert [turn.stakes for turn in desk.records.turns(leaf)] == [stakes, stakes]
    assert desk.store.rows("select count(*) from pools") == [(1,)]
