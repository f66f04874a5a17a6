"""The desk where jobs come in: looks up the facts for each Open, and keeps what all conversations share.

Refuses to know how a job goes on (conversation), what is right (core) and how papers become money (settle).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence

import msgspec

from lading_net.ports import Stream
from lading_node.agents import Agent
from lading_node.binder import Binder
from lading_node.channels import Channels, LookUp
from lading_node.conversation import Conversation
from lading_node.core import session as core
from lading_node.core.admission import Facts, admit
from lading_node.core.attempt import Session
from lading_node.core.channel import Channel, ChannelId, admit_to, sign_for
from lading_node.core.events import Opened, Record, Stopped
from lading_node.core.preemption import Rules, begins, choose_victim
from lading_node.core.proof import Prompt
from lading_node.ports import Doors
from lading_node.proofs import Proofs
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, TermsId, Wei, short
from lading_protocol.messages import Open, Refuse
from lading_protocol.receipts import Finish, Lock, SignedLock, SignedVoucher

log = logging.getLogger(__name__)

OPEN_SECONDS = 10.0
# How long an engine may take to the next token edge when a slot is to be cleared.
HAND_OVER_SECONDS = 2.0
# Ends that are no failures: the payer goes on with what was delivered.
HANDED_OVER = frozenset({"preempted", "draining"})


class Totals(msgspec.Struct):
    """Counters since the start, for the metrics page."""

    jobs: int = 0
    refused: int = 0
    failed: int = 0
    preempted: int = 0
    tokens: int = 0
    earned: int = 0


class Desk:
    """`new_paper` is told of every channel that got a voucher or a lock, so that it is settled in time.

    `pace` is how many output tokens a second a job may get, 0 for as many as the engine makes.
    """

    def __init__(
        self, doors: Doors, channels: Channels, agents: Sequence[Agent], new_paper: Callable[[ChannelId], None]
    ) -> None:
        self.pace = 0.0
        self.channels = channels
        self.ledger = doors.ledger
        self.key = doors.key
        self.clock = doors.clock
        self.court = doors.contracts.deployment.court_domain
        self.binder = Binder(doors.key, self.court)
        self.totals = Totals()
        self.refusals: dict[str, int] = {}
        self.closed = ""
        self._settlement = doors.contracts.deployment.settlement_domain
        self._agents = agents
        self._new_paper = new_paper
        self._rules = Rules()
        self._proofs = Proofs(doors.key.address, doors.contracts, doors.clock)
        self._running: dict[tuple[bytes, int], Conversation] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def answering(self) -> int:
        """Jobs of which a part is delivered, and a part is not."""
        return sum(talk.answering for talk in self._running.values())

    @property
    def running(self) -> int:
        return len(self._running)

    async def serve(self, stream: Stream) -> None:
        """The handler of the job protocol."""
        talk = Conversation(self, stream)
        opening = await talk.read_open(OPEN_SECONDS)
        if opening is None:
            stream.reset()
            return
        agent, session = self._find(opening), Session(opening, self.key.address)
        key = (opening.job, opening.attempt)
        seen = key in self._running or await self.ledger.seen(*key)
        proven = await self._prove(opening, agent)
        found = await self._look_up(opening, agent)
        seen = seen or key in self._running
        facts = self._facts(opening, agent, found, Address(stream.peer), seen=seen)
        facts = msgspec.structs.replace(facts, proven=proven)
        if agent is not None and await self._make_room(opening, agent, facts):
            seen = seen or key in self._running
            facts = self._facts(opening, agent, found, Address(stream.peer), seen=seen)
        opened = Opened(msgspec.structs.replace(facts, proven=proven))
        if not seen:
            self._running[key] = talk
            self._idle.clear()
        try:
            await talk.run(session, agent, opened)
        finally:
            if self._running.get(key) is talk:
                del self._running[key]
            if not self._running:
                self._idle.set()

    async def stop(self, patience: float, code: str = "draining", words: str = "This host is shutting down.") -> None:
        """Take no more jobs, let those that run end for `patience` seconds, then let their payers resume elsewhere."""
        self.closed = words
        if not await self._quiet(patience):
            for talk in list(self._running.values()):
                talk.post(Stopped(code, words))
            await self._quiet(core.PAY_SECONDS)
        await self.finish()

    async def finish(self) -> None:
        """Wait for what is being written; a voucher that arrived is not dropped on the way out."""
        self.binder.flush()
        if self._background:
            await asyncio.wait(self._background, timeout=core.PAY_SECONDS)

    async def _quiet(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def _make_room(self, opening: Open, agent: Agent, facts: Facts) -> bool:
        """For a job that would be taken but for a free slot: a job of a lower band gives way at its next token edge.

        Whether it would be taken is asked first: nobody is stopped for a job that cannot pay. True when room was made.
        """
        if facts.free_slots > 0 or agent.state != "serving":
            return False
        now, able = self.clock(), msgspec.structs.replace(facts, free_slots=1)
        running = {key: one for key, talk in self._running.items() if (one := talk.occupant(agent)) is not None}
        victim = choose_victim(running.values(), opening.band, now, self._rules)
        if victim is None or isinstance(admit(opening, able), Refuse):
            return False
        talk = next(self._running[key] for key, one in running.items() if one is victim)
        agent.promised += 1  # so that the slot goes to the job it was cleared for
        agent.preempted_at = now
        self.totals.preempted += 1
        try:
            talk.give_way()
            async with asyncio.timeout(HAND_OVER_SECONDS):
                await talk.freed.wait()
        except TimeoutError:
            return False
        finally:
            agent.promised -= 1
        return True

    # What conversations share

    async def keep_voucher(self, id: ChannelId, voucher: SignedVoucher, peer: Address) -> None:
        """Durable and counted when it returns, even if the stream that brought it is long gone. Raises LedgerError."""
        await self.ledger.put_voucher(id, voucher, peer, self.clock())
        self.channels.put(sign_for(self.channels.get(id), Wei(voucher.value.cumulative)))
        self._new_paper(id)

    async def keep_lock(self, id: ChannelId, lock: SignedLock, peer: Address) -> None:
        try:
            await self.ledger.put_lock(id, lock, peer)
        except LadingError as error:
            log.error("a lock of %s waits to be written: %s", short(id.signer), error)
        self._new_paper(id)

    async def collected(self, id: ChannelId, voucher: SignedVoucher, lock: SignedLock | None, peer: Address) -> None:
        """Papers that a payer handed over when asked; checked by the caller. Raises LedgerError."""
        if lock is not None and lock.value.cumulative > self.channels.get(id).locked:
            await self.keep_lock(id, lock, peer)
        if voucher.value.cumulative > self.channels.get(id).signed:
            self.channels.put(admit_to(self.channels.get(id), Wei(voucher.value.cumulative)))
            await self.keep_voucher(id, voucher, peer)

    def later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def refused(self, code: str) -> None:
        self.totals.refused += 1
        self.refusals[code] = self.refusals.get(code, 0) + 1

    def ended(self, record: Record) -> None:
        self.totals.jobs += 1
        self.totals.tokens += record.output_tokens
        self.totals.earned += record.amount
        if record.code in HANDED_OVER:
            log.info("a job was handed over (%s) after %d tokens", record.code, record.output_tokens)
        elif record.finish is Finish.FAILED:
            self.totals.failed += 1
            log.warning("a job ended early (%s) after %d tokens", record.code, record.output_tokens)

    # Facts

    def _find(self, opening: Open) -> Agent | None:
        for agent in self._agents:
            if agent.find_offer(opening.offer) is not None:
                return agent
        return None

    async def _look_up(self, opening: Open, agent: Agent | None) -> LookUp | None:
        known = agent.find_offer(opening.offer) if agent is not None else None
        if known is None:
            return None
        id = core.channel_id(opening, known.terms)
        lock = 0
        if opening.lock:
            try:
                lock = unpack(Lock, opening.lock).value.cumulative
            except LadingError:
                lock = 0  # admission refuses it in words
        return await self.channels.look_up(id, lock)

    async def _prove(self, opening: Open, agent: Agent | None) -> Prompt | None:
        known = agent.find_offer(opening.offer) if agent is not None and opening.proof else None
        return await self._proofs.check(opening, known) if known is not None else None

    def _facts(self, opening: Open, agent: Agent | None, found: LookUp | None, peer: Address, *, seen: bool) -> Facts:
        known = agent.find_offer(opening.offer) if agent is not None else None
        closed = self.closed or (f"The ledger is not writable: {self.ledger.trouble}" if self.ledger.trouble else "")
        if agent is not None and agent.state != "serving" and not closed:
            closed = agent.why or f"The agent is {agent.state}."
        free = agent.free if agent is not None else 0
        if agent is not None and not begins(opening.band, agent.preempted_at, self.clock(), self._rules):
            free = 0
        if found is None:
            found = LookUp(Channel(ChannelId(Address(opening.signer), TermsId(bytes(32)), opening.epoch)), None)
        return Facts(
            host=self.key.address,
            settlement=self._settlement,
            now=self.clock(),
            offer=known,
            free_slots=free,
            channel=found.channel,
            account=found.account,
            chain_error=found.error,
            closed=closed,
            seen=seen,
            beside=self.channels.beside(found.channel.id),
            stranger=peer not in (opening.signer, self.channels.peer(found.channel.id)),
        )
