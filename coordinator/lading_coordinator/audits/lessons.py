"""What is learnt from audits beyond their verdicts: remarks on auditors, hosts' long records, suspicion and its cost.

Applies what core and Conduct decide to those who act on it: matching, and who may be asked.
"""

import logging

import msgspec

from lading.dispatch import Directory
from lading_coordinator.audits.canaries import Canaries
from lading_coordinator.audits.conduct import Conduct, Pair
from lading_coordinator.audits.fees import Fees
from lading_coordinator.audits.records import Audit, Records
from lading_coordinator.core.audits import Asked, Opinion, is_silent, must_ask_again, outvoted
from lading_coordinator.core.conduct import Kind
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.standing import Standing
from lading_protocol.audit import Verdict
from lading_protocol.ids import Address, short
from lading_protocol.messages import Finding
from lading_protocol.receipts import Finish

log = logging.getLogger(__name__)


class Bench(msgspec.Struct, frozen=True):
    """What checks work with."""

    records: Records
    ledger: Ledger
    directory: Directory
    standing: Standing
    conduct: Conduct
    canaries: Canaries
    metrics: Metrics
    fees: Fees | None = None


class Lessons:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def apply(self) -> None:
        """Suspect hosts come last in matching, barred ones get no jobs; also after a restart and in a new epoch."""
        self._bench.directory.doubt(self._bench.conduct.suspects())
        for host, why in self._bench.conduct.bars().items():
            self._bench.standing.accuse(host, why)

    def heard(self, audit: Audit, auditor: Address, finding: Finding, before: Asked) -> bool:
        """Keep a finding; False when it does not count, because the host is to be asked for its sketch again.

        `before` says how often the host had been asked when this auditor was.
        """
        asked = self._bench.records.asked(audit.leaf)
        kind = Kind.of(finding.code)
        if kind is not None:
            self._bench.conduct.remark(auditor, audit.leaf, kind)
        elif must_ask_again(before, asked, Verdict(finding.verdict)):
            log.info("Host %s did not open its sketch (%d. time)", short(audit.host), asked.tries)
            return False
        self._bench.records.heard(audit.leaf, auditor, finding)
        return True

    def note(self, audit: Audit, opinions: list[Opinion], verdict: Verdict) -> None:
        """What a concluded audit says about its auditors and for the host's long record."""
        bench = self._bench
        for auditor in outvoted(opinions, verdict):
            bench.conduct.remark(auditor, audit.leaf, Kind.OUTVOTED)
            log.warning("Auditor %s was outvoted about receipt %s", short(auditor), short(audit.leaf))
        receipt = bench.ledger.receipt(audit.leaf)
        if receipt is None:
            return
        # A host that died in the middle of an answer has lost what it would have to open.
        if is_silent(bench.records.asked(audit.leaf)) and receipt.value.finish != Finish.RUNNING:
            self._suspect(audit, "it did not open its sketch, however often it was asked")
        if verdict is not Verdict.HONEST:
            return
        # One finding a receipt: two who agree would count the same answer twice.
        for paper in bench.records.papers(audit.leaf):
            if paper.finding.verdict == verdict:
                tokens = receipt.value.output_tokens
                pair = Pair(self._numeric(audit, audit.host), self._numeric(audit, paper.auditor))
                reason = bench.conduct.learn(audit, pair, paper, tokens)
                if reason:
                    log.warning("Host %s is suspect in this epoch: %s", short(audit.host), reason)
                return

    def _suspect(self, audit: Audit, reason: str) -> None:
        if self._bench.conduct.suspicious(audit.host, reason):
            log.warning("Host %s is suspect in this epoch: %s", short(audit.host), reason)

    def _numeric(self, audit: Audit, host: Address) -> str:
        """The numeric class that a host declares for the agent; "" when its offer is gone."""
        offers = [one for one in self._bench.directory.offers(audit.agent) if one.host == host]
        return offers[0].detail.numeric if offers else ""

    def tell(self, audit: Audit, opinions: list[Opinion], verdict: Verdict) -> None:
        """A canary is over. Who called it honest is struck off, unless most did: then it was not false enough."""
        bench = self._bench
        bench.canaries.tell(audit.leaf)
        missed = [one.auditor for one in opinions if one.verdict is Verdict.HONEST]
        if verdict is not Verdict.GUILTY and missed:
            log.error("Canary %s is void: %d auditors find it honest", short(audit.leaf), len(missed))
            missed = []
        for auditor in missed:
            bench.conduct.remark(auditor, audit.leaf, Kind.MISSED)
            log.error("Auditor %s called a known fault honest and is struck off", short(auditor))
        told = bench.canaries.told(audit.leaf)
        bench.records.conclude(audit.leaf, "canary", verdict, f"a canary: {told.fault if told is not None else ''}")
        bench.metrics.audits.labels("canary").inc()
