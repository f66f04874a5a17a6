"""Canaries against real nodes: with a sketch that is opened like any other, found by every auditor that works."""

from pathlib import Path

from factories import key
from lading.keyfile import write_key
from lading_protocol.audit import Verdict
from lading_protocol.economics import AuditRates
from lading_protocol.eip712 import unpack
from lading_protocol.receipts import Receipt
from simulation.flow.answers import question
from simulation.flow.world import Market, Setting, play

HOSTS = ("amber", "birch", "cedar", "dogwood")


def test_every_working_auditor_finds_a_canary_and_nobody_is_accused(tmp_path: Path) -> None:
    write_key(tmp_path / "canary key", key("dogwood"))

    async def story(market: Market) -> None:
        await market.open_for_business()
        carla, coordinator = market.consumers["carla"], market.coordinator
        records = coordinator.records
        for n in range(12):
            await carla.ask(question(20 + n, 60))
            if any(one.state == "canary" for one in records.audits()):
                break
            await market.until(lambda: all(one.state in ("done", "canary") for one in records.audits()))
        await market.until(lambda: all(one.state in ("done", "canary") for one in records.audits()))
        canaries = [one for one in records.audits() if one.state == "canary"]
        assert canaries
        for one in canaries:
            assert one.verdict is Verdict.GUILTY
            papers = records.papers(one.leaf)
            assert papers
            for paper in papers:
                assert paper.finding.code in ("margin", "sketch", "prompt")
                assert paper.finding.checked > 12
            case = coordinator.canaries.case(one.leaf)
            assert case is not None
            assert case.marks, "it is sketched like what it was made of"
            made = unpack(Receipt, case.receipt).value
            seconds = made.issued_at - int.from_bytes(made.job[:6], "big") / 1000
            assert -1 < seconds < 60, "its id tells when it began, like any other"
        assert {one.verdict for one in records.audits() if one.state == "done"} == {Verdict.HONEST}
        assert records.disputes() == []
        assert not any(coordinator.conduct.excluded(host.address) for host in market.hosts.values())

    rates = AuditRates(canary_ppm=1_000_000)
    play(story, tmp_path, Setting(hosts=HOSTS, audit_rate=1.0, rates=rates, canary=str(tmp_path / "canary key")))
