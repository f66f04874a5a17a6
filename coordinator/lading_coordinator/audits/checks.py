"""Asks auditors about picked receipts, one after the other, until core.audits can conclude."""

import asyncio
import logging
from collections.abc import Callable

from lading_coordinator.audits.asking import Asking
from lading_coordinator.audits.lessons import Bench, Lessons
from lading_coordinator.audits.records import Audit, Turn
from lading_coordinator.core.audits import (
    WORDS,
    AskNext,
    Conclude,
    Opinion,
    Policy,
    Question,
    Wait,
    judge,
    may_check,
)
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
        bench: Bench,
        transport: Transport,
        policy: Policy,
        clock: Callable[[], float],
        *,
        patience: float = 60.0,
        hold: float = 3600.0,
    ) -> None:
        self._bench = bench
        self._records = bench.records
        self._lessons = Lessons(bench)
        self._asking = Asking(transport, bench.ledger, patience, self._opened, bench.fees)
        self._policy = policy
        self._clock = clock
        self.hold = hold

    async def step(self) -> None:
        """Take every pending audit as far as it goes now. Raises LedgerFailed."""
        self._lessons.apply()
        places = asyncio.Semaphore(AT_ONCE)

        async def one(audit: Audit) -> None:
            async with places:
                await self._pursue(audit)

        await asyncio.gather(*(one(audit) for audit in self._records.audits("pending")))

    async def _pursue(self, audit: Audit) -> None:
        question = self._question(audit)
        case = self._bench.canaries.case(audit.leaf) or self._bench.ledger.case(audit.leaf)
        if case is None:
            self._conclude(audit, Verdict.UNKNOWN, "the evidence is not kept any more, or is too large to send")
            return
        while may_check(asked := self._records.asked(audit.leaf), self._policy, self._clock()):
            opinions = self._records.opinions(audit.leaf)
            able = self._auditors(audit, opinions)
            stakes = {who: self._bench.standing.stake(who) for who in able}
            match judge(question, opinions, stakes, self._policy):
                case Conclude(verdict, reason):
                    self._end(audit, question, opinions, Conclude(verdict, reason))
                    return
                case Wait(reason):
                    if self._clock() - audit.at > self.hold:
                        self._end(audit, question, opinions, Conclude(Verdict.UNKNOWN, reason))
                    return
                case AskNext(auditor):
                    self._records.drew(audit.leaf, Turn(len(opinions), auditor, stakes))
                    finding = await self._asking.ask(able[auditor], self._host(audit), audit.leaf, case)
                    if self._lessons.heard(audit, auditor, finding, asked):
                        self._say(audit, auditor, finding)

    def _question(self, audit: Audit) -> Question:
        canary = self._bench.canaries.case(audit.leaf) is not None
        secret = self._records.appointment(audit.round).secret
        return Question(audit.randomness, audit.leaf, secret, Verdict.GUILTY if canary else Verdict.HONEST)

    def _auditors(self, audit: Audit, opinions: list[Opinion]) -> dict[Address, KnownOffer]:
        """Hosts of the same agent that are alive and staked, that belong neither to the audited one nor to its payer
        nor to an auditor that was asked already, and that are not excluded for what they did as auditors."""
        bench, now = self._bench, self._clock()
        strangers = set(bench.standing.hands(audit.host))
        for opinion in opinions:
            strangers |= bench.standing.hands(opinion.auditor)
        payer = bench.ledger.payer(audit.leaf)
        strangers |= {payer} if payer is not None else set()
        return {
            one.offer.host: one.offer
            for one in bench.directory.candidates(audit.agent)
            if not one.barred
            and one.beat_at is not None
            and now - one.beat_at <= BEAT_SECONDS
            and not bench.standing.hands(one.offer.host) & strangers
            and not bench.conduct.excluded(one.offer.host)
        }

    def _host(self, audit: Audit) -> KnownOffer | None:
        """Any offer of the audited host, whatever its standing: it is asked to open, not to serve."""
        return next((one for one in self._bench.directory.offers(audit.agent) if one.host == audit.host), None)

    def _opened(self, leaf: bytes, opened: bool) -> None:
        self._records.opening(leaf, opened=opened)

    def _say(self, audit: Audit, auditor: Address, finding: Finding) -> None:
        log.info(
            "Audit of host %s, receipt %s: auditor %s finds it %s (%s)",
            short(audit.host),
            short(audit.leaf),
            short(auditor),
            WORDS[Verdict(finding.verdict)],
            finding.reason,
        )

    def _end(self, audit: Audit, question: Question, opinions: list[Opinion], end: Conclude) -> None:
        if question.expected is Verdict.GUILTY:
            self._lessons.tell(audit, opinions, end.verdict)
            return
        self._lessons.note(audit, opinions, end.verdict)
        self._conclude(audit, end.verdict, end.reason)

    def _conclude(self, audit: Audit, verdict: Verdict, reason: str) -> None:
        state = "accused" if verdict is Verdict.GUILTY else "done"
        self._records.conclude(audit.leaf, state, verdict, reason)
        self._bench.metrics.audits.labels(verdict.name.lower()).inc()
        level = logging.WARNING if verdict is Verdict.GUILTY else logging.INFO
        log.log(
            level, "Audit of host %s, receipt %s: %s, %s", short(audit.host), short(audit.leaf), verdict.name, reason
        )
