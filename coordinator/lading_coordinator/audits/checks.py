"""Asks auditors about picked receipts, one after the other, until core.audits can conclude."""

import asyncio
import logging
from collections.abc import Callable
from math import isnan

import msgspec

from lading.dispatch import Directory
from lading_coordinator.audits.canaries import Canaries
from lading_coordinator.audits.conduct import Conduct
from lading_coordinator.audits.records import Audit, Records, Turn
from lading_coordinator.core.audits import (
    WORDS,
    AskNext,
    Conclude,
    Opinion,
    Policy,
    Question,
    Wait,
    is_silent,
    judge,
    may_check,
    must_ask_again,
    outvoted,
)
from lading_coordinator.core.conduct import Kind
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.standing import Standing
from lading_net.errors import LinkClosed, NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link, Transport
from lading_protocol.audit import Verdict
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, short
from lading_protocol.messages import AUDIT, Case, Check, Finding, FromAuditor, Refuse
from lading_protocol.offers import KnownOffer

log = logging.getLogger(__name__)
_from_auditor = msgspec.msgpack.Decoder(FromAuditor)
AT_ONCE = 4
BEAT_SECONDS = 5.0
SILENT = "silent"


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
        conduct: Conduct,
        canaries: Canaries,
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
        self._transport = transport
        self._metrics = metrics
        self._conduct = conduct
        self._canaries = canaries
        self._policy = policy
        self._clock = clock
        self._patience = patience
        self._hold = hold

    async def step(self) -> None:
        """Take every pending audit as far as it goes now. Raises LedgerFailed."""
        self._directory.doubt(self._conduct.suspects())
        for host, why in self._conduct.bars().items():
            self._standing.accuse(host, why)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(audit: Audit) -> None:
            async with places:
                await self._pursue(audit)

        await asyncio.gather(*(one(audit) for audit in self._records.audits("pending")))

    async def _pursue(self, audit: Audit) -> None:
        question = self._question(audit)
        case = self._canaries.case(audit.leaf) or self._ledger.case(audit.leaf)
        if case is None:
            self._conclude(audit, Verdict.UNKNOWN, "the evidence is not kept any more, or is too large to send")
            return
        while may_check(self._records.asked(audit.leaf), self._policy, self._clock()):
            opinions = self._records.opinions(audit.leaf)
            able = self._auditors(audit, opinions)
            stakes = {who: self._standing.stake(who) for who in able}
            match judge(question, opinions, stakes, self._policy):
                case Conclude(verdict, reason):
                    if question.expected is Verdict.GUILTY:
                        self._tell(audit, opinions, verdict)
                    else:
                        self._note(audit, opinions, verdict)
                        self._conclude(audit, verdict, reason)
                    return
                case Wait(reason):
                    if self._clock() - audit.at > self._hold:
                        self._note(audit, opinions, Verdict.UNKNOWN)
                        self._conclude(audit, Verdict.UNKNOWN, reason)
                    return
                case AskNext(auditor):
                    self._records.drew(audit.leaf, Turn(len(opinions), auditor, stakes))
                    finding = await self._ask(able[auditor], audit, case)
                    self._heard(audit, auditor, finding)

    def _question(self, audit: Audit) -> Question:
        canary = self._canaries.case(audit.leaf) is not None
        secret = self._records.appointment(audit.round).secret
        return Question(audit.randomness, audit.leaf, secret, Verdict.GUILTY if canary else Verdict.HONEST)

    def _auditors(self, audit: Audit, opinions: list[Opinion]) -> dict[Address, KnownOffer]:
        """Hosts of the same agent that are alive and staked, that belong neither to the audited one nor to its payer
        nor to an auditor that was asked already, and that are not excluded for what they did as auditors."""
        now, strangers = self._clock(), set(self._standing.hands(audit.host))
        for opinion in opinions:
            strangers |= self._standing.hands(opinion.auditor)
        payer = self._ledger.payer(audit.leaf)
        strangers |= {payer} if payer is not None else set()
        return {
            one.offer.host: one.offer
            for one in self._directory.candidates(audit.agent)
            if not one.barred
            and one.beat_at is not None
            and now - one.beat_at <= BEAT_SECONDS
            and not self._standing.hands(one.offer.host) & strangers
            and not self._conduct.excluded(one.offer.host)
        }

    def _heard(self, audit: Audit, auditor: Address, finding: Finding) -> None:
        """Keep a finding; without the host's sketch it counts only once the host was asked often enough."""
        verdict, asked = Verdict(finding.verdict), self._records.asked(audit.leaf)
        if finding.code == SILENT:
            self._conduct.remark(auditor, audit.leaf, Kind.SILENT)
        elif must_ask_again(asked, verdict):
            log.info("Host %s did not open its sketch (%d. time)", short(audit.host), asked.tries)
            return
        self._records.heard(audit.leaf, auditor, finding)
        self._say(audit, auditor, finding)

    def _note(self, audit: Audit, opinions: list[Opinion], verdict: Verdict) -> None:
        """What a concluded audit says beyond its verdict: about auditors, and for the host's long record."""
        for auditor in outvoted(opinions, verdict):
            self._conduct.remark(auditor, audit.leaf, Kind.OUTVOTED)
            log.warning("Auditor %s was outvoted about receipt %s", short(auditor), short(audit.leaf))
        if is_silent(self._records.asked(audit.leaf)):
            self._suspect(audit, "it did not open its sketch, however often it was asked")
        elif verdict is Verdict.UNKNOWN and any(one.verdict is Verdict.GUILTY for one in opinions):
            self._suspect(audit, "an auditor found a receipt of it wrong, and too few others could look")
        numeric = self._numeric(audit)
        receipt = self._ledger.receipt(audit.leaf)
        for paper in self._records.papers(audit.leaf):
            # Both of two who agree would count one answer twice.
            if receipt is not None and paper.finding.verdict == verdict is Verdict.HONEST:
                tokens = receipt.value.output_tokens
                reason = self._conduct.learn(audit, numeric, paper.auditor, paper.finding, tokens)
                if reason:
                    self._suspect(audit, reason)
                break

    def _suspect(self, audit: Audit, reason: str) -> None:
        self._conduct.suspicious(audit.host, reason)
        log.warning("Host %s is suspect in this epoch: %s", short(audit.host), reason)

    def _numeric(self, audit: Audit) -> str:
        """The numeric class that the host declares for the agent; "" when its offer is gone."""
        offers = [one for one in self._directory.offers(audit.agent) if one.host == audit.host]
        return offers[0].detail.numeric if offers else ""

    def _tell(self, audit: Audit, opinions: list[Opinion], verdict: Verdict) -> None:
        """A canary is over. Who called it honest is struck off, unless most did: then it was not false enough."""
        self._canaries.tell(audit.leaf)
        missed = [one.auditor for one in opinions if one.verdict is Verdict.HONEST]
        if verdict is not Verdict.GUILTY:
            log.error("Canary %s is void: %d auditors find it honest", short(audit.leaf), len(missed))
            missed = []
        for auditor in missed:
            self._conduct.remark(auditor, audit.leaf, Kind.MISSED)
            log.error("Auditor %s called a known fault honest and is struck off", short(auditor))
        told = self._canaries.told(audit.leaf)
        fault = told.fault if told is not None else ""
        self._records.conclude(audit.leaf, "canary", verdict, f"a canary: {fault}")
        self._metrics.audits.labels("canary").inc()

    async def _ask(self, offer: KnownOffer, audit: Audit, case: Case) -> Finding:
        """The auditor's finding; a refusal, silence or nonsense counts as "cannot say"."""
        try:
            async with asyncio.timeout(self._patience):
                link = await self._link(offer)
                messages: MessageStream[Finding | Refuse] = MessageStream(await link.open(AUDIT), _from_auditor)
                messages.send(Check(case))
                await messages.drain()
                answer = await messages.recv()
                await messages.close()
        except TimeoutError:
            return _cannot_say(audit, SILENT, f"no answer within {self._patience:g} s")
        except LadingError as error:
            return _cannot_say(audit, error.code, error.message)
        if isinstance(answer, Finding) and answer.receipt == audit.leaf and not isnan(answer.worst):
            return answer
        if isinstance(answer, Refuse):
            return _cannot_say(audit, answer.code, answer.message)
        why = "it closed the stream" if answer is None else "what it found is not about this receipt, or no number"
        return _cannot_say(audit, SILENT, why)

    async def _link(self, offer: KnownOffer) -> Link:
        for link in self._transport.links():
            if link.peer == offer.host and not link.closed.is_set():
                return link
        error: NetError = LinkClosed("The auditor has no link to this coordinator.")
        for endpoint in offer.detail.endpoints:
            try:
                return await self._transport.dial(endpoint, offer.host)
            except NetError as failure:
                error = failure
        raise error

    def _say(self, audit: Audit, auditor: Address, finding: Finding) -> None:
        log.info(
            "Audit of host %s, receipt %s: auditor %s finds it %s (%s)",
            short(audit.host),
            short(audit.leaf),
            short(auditor),
            WORDS[Verdict(finding.verdict)],
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


def _cannot_say(audit: Audit, code: str, reason: str) -> Finding:
    return Finding(audit.leaf, int(Verdict.UNKNOWN), code[:64], reason[:2000])
