"""Asks auditors about picked receipts, one after the other, until core.audits can conclude."""

import asyncio
import logging
from collections.abc import Callable

from lading.dispatch import Directory
from lading_coordinator.audits.asking import Asking
from lading_coordinator.audits.records import Audit, Records
from lading_coordinator.core.audits import AskNext, Conclude, Policy, Wait, judge
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.standing import Standing
from lading_net.ports import Transport
from lading_protocol.audit import Verdict
from lading_protocol.ids import Address, short
from lading_protocol.messages import Finding
from lading_protocol.offers import KnownOffer

log = logging.getLogger(__name__)
AT_ONCE = 4
BEAT_SECONDS = 5.0


class Checks:
    """`clock` gives Unix seconds; an auditor has `patience` seconds for one case, and a receipt for which nobody can be
    asked waits `hold` seconds before it is given up."""

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        directory: Directory,
        standing: Standing,
        transport: Transport,
        metrics: Metrics,
        policy: Policy,
        clock: Callable[[], float],
        *,
        patience: float = 60.0,
        hold: float = 3600.0,
    ) -> None:
        self._records = records
        self._ledger = ledger
        self._directory = directory
        self._standing = standing
        self._asking = Asking(transport, ledger, patience)
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        self._hold = hold

    async def step(self) -> None:
        """Take every pending audit as far as it goes now. Raises LedgerFailed."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(audit: Audit) -> None:
            async with places:
                await self._pursue(audit)

        await asyncio.gather(*(one(audit) for audit in self._records.audits("pending")))

    async def _pursue(self, audit: Audit) -> None:
        case = self._ledger.case(audit.leaf)
        if case is None:
            self._conclude(audit, Verdict.UNKNOWN, "the evidence is not kept any more, or is too large to send")
            return
        while True:
            opinions = self._records.opinions(audit.leaf)
            able = self._auditors(audit)
            match judge(opinions, list(able), audit.randomness, audit.leaf, self._policy):
                case Conclude(verdict, reason):
                    self._conclude(audit, verdict, reason)
                    return
                case Wait(reason):
                    if self._clock() - audit.at > self._hold:
                        self._conclude(audit, Verdict.UNKNOWN, reason)
                    return
                case AskNext(auditor):
                    finding = await self._asking.ask(able[auditor], self._host(audit), audit.leaf, case)
                    self._records.heard(audit.leaf, auditor, finding)
                    self._say(audit, auditor, finding)

    def _auditors(self, audit: Audit) -> dict[Address, KnownOffer]:
        """Hosts of the same agent that are alive, staked, and owned by somebody else than the audited one."""
        now, owner = self._clock(), self._standing.owner(audit.host)
        return {
            one.offer.host: one.offer
            for one in self._directory.candidates(audit.agent)
            if not one.barred
            and one.beat_at is not None
            and now - one.beat_at <= BEAT_SECONDS
            and one.offer.host != audit.host
            and self._standing.owner(one.offer.host) != owner
        }

    def _host(self, audit: Audit) -> KnownOffer | None:
        """Any offer of the audited host, whatever its standing: it is asked to open, not to serve."""
        return next(
            (one.offer for one in self._directory.candidates(audit.agent) if one.offer.host == audit.host), None
        )

    def _say(self, audit: Audit, auditor: Address, finding: Finding) -> None:
        words = {Verdict.HONEST: "right", Verdict.GUILTY: "WRONG", Verdict.UNKNOWN: "not decidable"}
        log.info(
            "Audit of host %s, receipt %s: auditor %s finds it %s (%s)",
            short(audit.host),
            short(audit.leaf),
            short(auditor),
            words[Verdict(finding.verdict)],
            finding.reason,
        )

    def _conclude(self, audit: Audit, verdict: Verdict, reason: str) -> None:
        state = "accused" if verdict is Verdict.GUILTY else "done"
        self._records.conclude(audit.leaf, state, verdict, reason)
        self._metrics.audits.labels(verdict.name.lower()).inc()
        level = logging.WARNING if verdict is Verdict.GUILTY else logging.INFO
        log.log(
            level, "Audit of host %s, receipt %s: %s, %s", short(audit.host), short(audit.leaf), verdict.name, reason
        )
