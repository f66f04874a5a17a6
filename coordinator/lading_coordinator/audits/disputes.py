"""Takes accusations to the court and carries each dispute to its end: bond, draw, tally, execute; evidence for jurors.

The court's own state says what is next, so every step may be repeated, interrupted, or done by somebody else first.
"""

import logging

import msgspec

from lading_contracts.court import dispute_id
from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainError, Reverted
from lading_coordinator.audits.conduct import Conduct
from lading_coordinator.audits.records import Audit, DisputeRow, Records
from lading_coordinator.core.audits import Step, Trial, next_step
from lading_coordinator.core.conduct import Kind
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_net.sketches import send_sketch
from lading_protocol.audit import Verdict
from lading_protocol.court import Phase
from lading_protocol.ids import Digest, short, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import GetCase, Refuse, Unopened
from lading_protocol.pricing import format_amount

log = logging.getLogger(__name__)
VOID_TRIES = 3
_get_case = msgspec.msgpack.Decoder(GetCase)


class Disputes:
    """`key` pays the bonds and the gas."""

    def __init__(
        self,
        records: Records,
        ledger: Ledger,
        conduct: Conduct,
        contracts: Contracts,
        key: PrivateKey,
        metrics: Metrics,
    ) -> None:
        self._conduct = conduct
        self._records = records
        self._ledger = ledger
        self._contracts = contracts
        self._key = key
        self._metrics = metrics
        self._poor = False

    async def step(self) -> None:
        """Open what is accused and move what is open. Raises ChainError, LedgerFailed."""
        in_court = {row.host for row in self._records.disputes(only_open=True)}
        for audit in self._records.audits("accused"):
            # One case at a time: a slash is meant for a spell of cheating, not for each receipt that was drawn from it.
            if audit.host not in in_court:
                await self._open(audit)
                in_court.add(audit.host)
        pending = self._records.disputes(only_open=True)
        if not pending:
            return
        head = await self._contracts.chain.block()
        if head is None:
            return
        for row in pending:
            await self._move(row, head.timestamp, head.number)

    async def _open(self, audit: Audit) -> None:
        receipt = self._ledger.receipt(audit.leaf)
        if receipt is None:
            self._records.conclude(audit.leaf, "done", Verdict.UNKNOWN, "the receipt is not kept any more")
            return
        court, coin = self._contracts.court, self._contracts.coin
        id_ = dispute_id(receipt.value, self._key.address)
        found = await court.dispute(id_)
        if found is None or found.phase is Phase.VOID:
            bond = (await court.params()).bond
            if not await self._can_pay(bond):
                return
            try:
                await coin.allow(self._key, court.address, bond)
                await court.open(self._key, receipt)
            except Reverted as error:
                self._records.conclude(
                    audit.leaf, "done", Verdict.GUILTY, f"the court did not take it: {error.message}"
                )
                log.warning("The court did not take the dispute against %s: %s", short(audit.host), error)
                return
            log.warning(
                "Dispute %s opened against host %s with a bond of %s", short(id_), short(audit.host), self._coins(bond)
            )
        self._metrics.disputes.labels("open").inc()
        self._records.opened(id_, audit)

    async def _can_pay(self, bond: int) -> bool:
        held = await self._contracts.coin.balance(self._key.address)
        if held < bond and not self._poor:
            log.error(
                "A proven fault cannot be taken to court: the bond is %s and %s holds %s. Send coins there.",
                self._coins(bond),
                to_hex(self._key.address),
                self._coins(held),
            )
        self._poor = held < bond
        return not self._poor

    async def _move(self, row: DisputeRow, now: int, head: int) -> None:
        court = self._contracts.court
        found = await court.dispute(row.id)
        if found is None:
            self._records.note(row.id, "closed", "the chain does not know it any more")
            return
        trial = Trial(found.phase, found.draw_block, found.reveal_by, found.appeal_by, found.seats, found.revealed)
        step = next_step(trial, now, head)
        try:
            match step:
                case Step.WAIT:
                    return
                case Step.DRAW:
                    await court.draw(self._key, row.id)
                case Step.TALLY:
                    await court.tally(self._key, row.id)
                case Step.EXECUTE:
                    await court.execute(self._key, row.id)
                case Step.END:
                    self._end(row, trial.phase, int(found.verdict), found.round)
                    return
        except Reverted as error:
            log.info("Dispute %s: somebody else was first, or it is too early (%s)", short(row.id), error.message)
            return
        self._metrics.disputes.labels(step.value).inc()
        log.info("Dispute %s against host %s: %s done", short(row.id), short(row.host), step.value)

    def _end(self, row: DisputeRow, phase: Phase, verdict: int, rounds: int) -> None:
        note = "void: no committee could decide" if phase is Phase.VOID else f"ruled {Verdict(verdict).name.lower()}"
        self._records.note(row.id, "void" if phase is Phase.VOID else "closed", note)
        if phase is Phase.VOID and rounds < VOID_TRIES:
            # Jurors who stay away must not be enough to get off: the bond is back, so the case is opened again.
            self._records.conclude(row.leaf, "accused", Verdict.GUILTY, note)
            log.warning("Dispute %s against host %s is %s; it is opened again", short(row.id), short(row.host), note)
            return
        self._records.conclude(row.leaf, "done", Verdict.GUILTY if verdict == Verdict.GUILTY else Verdict.UNKNOWN, note)
        log.warning("Dispute %s against host %s is over: %s", short(row.id), short(row.host), note)
        if phase is not Phase.VOID and verdict == Verdict.HONEST:
            for opinion in self._records.opinions(row.leaf):
                if opinion.verdict is Verdict.GUILTY:
                    self._conduct.remark(opinion.auditor, row.leaf, Kind.OVERRULED)
        if phase is not Phase.VOID and verdict == Verdict.GUILTY:
            for audit in self._records.audits("accused"):
                if audit.host == row.host:
                    covered = f"covered by dispute {short(row.id)}, in which the host was convicted"
                    self._records.conclude(audit.leaf, "done", Verdict.GUILTY, covered)

    async def serve_case(self, stream: Stream) -> None:
        """The handler of CASE: evidence for the jurors of a dispute, and for nobody else: it holds what was asked."""
        messages: MessageStream[GetCase] = MessageStream(stream, _get_case)
        ask = await messages.recv()
        if ask is None:
            return
        row = self._records.dispute(ask.dispute)
        case = self._ledger.case(row.leaf) if row is not None else None
        if row is None or case is None:
            messages.send(Refuse("no_case", "This coordinator holds no evidence for that dispute."))
        elif not await self._is_juror(row.id, stream):
            messages.send(Refuse("not_a_juror", "Only jurors of a dispute may read its evidence.", 1000))
        else:
            messages.send(case)
            opened = self._ledger.opening(row.leaf)
            if opened is not None:
                await send_sketch(messages, opened)
            else:
                messages.send(Unopened("The host has not opened its sketch."))
        await messages.drain()

    async def _is_juror(self, id_: Digest, stream: Stream) -> bool:
        court = self._contracts.court
        try:
            found = await court.dispute(id_)
            if found is None:
                return False
            for round_ in range(found.round + 1):
                if stream.peer in await court.jurors(id_, round_):
                    return True
        except ChainError as error:
            log.info("A juror cannot be checked now: %s", error)
        return False

    def _coins(self, amount: int) -> str:
        record = self._contracts.deployment
        return f"{format_amount(amount, record.decimals, 4)} {record.symbol}"
