"""Asks auditors about picked receipts, one after the other, until core.audits can conclude."""

import asyncio
import logging
from collections.abc import Callable
from math import isnan

import msgspec

from lading.dispatch import Directory
from lading_coordinator.audits.records import Audit, Records
from lading_coordinator.core.audits import AskNext, Conclude, Policy, Wait, judge
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
        self._transport = transport
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        self._patience = patience
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
                    finding = await self._ask(able[auditor], audit, case)
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
            return _cannot_say(audit, "silent", f"no answer within {self._patience:g} s")
        except LadingError as error:
            return _cannot_say(audit, error.code, error.message)
        if isinstance(answer, Finding) and answer.receipt == audit.leaf and not isnan(answer.worst):
            return answer
        if isinstance(answer, Refuse):
            return _cannot_say(audit, answer.code, answer.message)
        why = "it closed the stream" if answer is None else "what it found is not about this receipt, or no number"
        return _cannot_say(audit, "silent", why)

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


def _cannot_say(audit: Audit, code: str, reason: str) -> Finding:
    return Finding(audit.leaf, int(Verdict.UNKNOWN), code[:64], reason[:2000])
