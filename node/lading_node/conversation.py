"""One job stream from its Open to its end: feeds core/session with what happens and does what it says.

Owns the stream, the engine's iterator and the timers of one attempt; every rule is in core/session and core/admission.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, assert_never, cast

import msgspec

from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_node.agents import Agent
from lading_node.core import session as core
from lading_node.core.attempt import Session
from lading_node.core.channel import ChannelId
from lading_node.core.events import (
    Cancelled,
    Effect,
    EngineFailed,
    EngineFinished,
    EngineRows,
    EngineRun,
    EngineStarted,
    EngineTraced,
    Event,
    Gone,
    Hangup,
    Opened,
    Paid,
    PauseEngine,
    Persisted,
    PersistFailed,
    PersistVoucher,
    Record,
    ResumeEngine,
    Send,
    SendReceipt,
    StartEngine,
    StopEngine,
    Stopped,
    SubmitLock,
    Woken,
)
from lading_node.core.preemption import Occupant
from lading_node.engines import port
from lading_node.store import AttemptRow, KeptSketch
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, JobId, Wei
from lading_protocol.messages import Accept, BareOpen, Cancel, Chunk, Done, EmbedRequest, Open, Pay, Refuse, ToHost
from lading_protocol.receipts import Finish, Receipt, SignedLock, SignedReceipt, SignedVoucher

if TYPE_CHECKING:
    from lading_node.jobs import Desk

# What a payer may have under way to us, and an engine to the payer, before the one or the other has to wait.
MAX_EVENTS = 512
ENGINE_AHEAD = 64
PACED_STEP_SECONDS = 0.03
DRAIN_SECONDS = 30.0

_decoder = msgspec.msgpack.Decoder(ToHost)
_CODES = {
    "invalid_request": "bad_request",
    "context_exceeded": "too_long",
    "engine_died": "engine_crashed",
}
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH, "cancelled": Finish.CANCELLED}


class Conversation:
    """`owner` supplies everything that is shared, and hears of the Record of an attempt that was accepted, once."""

    def __init__(self, owner: Desk, stream: Stream) -> None:
        self._owner = owner
        self._stream = stream
        self._messages: MessageStream[ToHost] = MessageStream(stream, _decoder)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._room = asyncio.Semaphore(ENGINE_AHEAD)
        self._hurry = asyncio.Event()
        self._next_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._agent: Agent | None = None
        self._holds_slot = False
        self._slot_since = 0.0
        self._yields = False
        self._engine_id = ""
        self.freed = asyncio.Event()
        self.session: Session | None = None

    async def read_open(self, patience: float) -> Open | None:
        """The first message, or None when there is none worth an answer."""
        try:
            async with asyncio.timeout(patience):
                message = await self._messages.recv()
        except (TimeoutError, NetError):
            return None
        return message if isinstance(message, Open) else None

    def post(self, event: Event) -> None:
        if self._events.qsize() > MAX_EVENTS and not isinstance(event, EngineFinished | EngineFailed | Stopped):
            self._stream.reset()
            event = Gone()
        self._events.put_nowait(event)

    def wake(self) -> None:
        self._events.put_nowait(Woken())

    async def run(self, session: Session, agent: Agent | None, opened: Opened) -> None:
        """Carry the attempt to its end. `agent` is the one that the offer names, if there is one."""
        self.session, self._agent = session, agent
        self._engine_id = f"{session.opening.job.hex()}:{session.opening.attempt}"
        if agent is None:
            await self._step(opened)
            return
        agent.take_slot()  # before anything is awaited, so that no two Opens take the same slot
        self._holds_slot = True
        self._slot_since = self._owner.clock()
        try:
            await self._step(opened)
            if not self.session.over:
                await self._converse()
        finally:
            self._free_slot()

    def _free_slot(self) -> None:
        """The engine is done with this job; what is left is to wait for the last voucher, which takes no slot."""
        if self._holds_slot and self._agent is not None:
            self._holds_slot = False
            self._agent.free_slot()
            self.freed.set()

    @property
    def answering(self) -> bool:
        """Something is delivered, and the engine is still at it."""
        return self._holds_slot and self.session is not None and self.session.count > 0

    def occupant(self, agent: Agent) -> Occupant | None:
        """What it would cost to take this job's slot of the agent away; None when it holds none, or gives it up now."""
        session = self.session
        if session is None or agent is not self._agent or not self._holds_slot or self._yields:
            return None
        opening, tokens = session.opening, session.prompt_tokens + session.first + session.count
        key = (opening.job, opening.attempt)
        return Occupant(key, opening.band, self._slot_since, tokens, opening.preempted)

    def give_way(self) -> None:
        """End here at the next token edge; the payer goes on elsewhere, or later."""
        self._yields = True
        self.post(Stopped("preempted", "An interactive job needs the slot. Go on elsewhere, or here later."))

    async def _converse(self) -> None:
        assert self.session is not None
        id = self._id()
        self._owner.channels.watch(id, Address(self._stream.peer), self.wake)
        self._spawn(self._read())
        try:
            while not self.session.over:
                await self._step(await self._next())
        finally:
            self._owner.channels.unwatch(id, self.wake)
            await self._wind_up()

    async def _next(self) -> Event:
        assert self.session is not None
        if not self._events.empty():
            event = self._events.get_nowait()
        elif self.session.deadline is None:
            event = await self._events.get()
        else:
            try:
                async with asyncio.timeout(max(0.0, self.session.deadline - self._owner.clock())):
                    event = await self._events.get()
            except TimeoutError:
                event = Woken()
        if isinstance(event, EngineRun):
            self._room.release()
        return event

    async def _step(self, event: Event) -> None:
        """One event, and everything it leads to. Nothing is awaited between reading and writing the channel."""
        assert self.session is not None
        session = self.session
        if isinstance(event, Opened):
            event = self._as_of_now(event)
            channel = event.facts.channel
        else:
            channel = self._owner.channels.get(core.channel_id(session.opening, session.offer.terms))
        step = core.apply(session, channel, event, self._owner.clock())
        self.session = step.session
        if step.channel != channel:
            self._owner.channels.put(step.channel)
        for effect in step.effects:
            self._perform(effect)
        if step.effects:
            await self._drain()

    def _as_of_now(self, opened: Opened) -> Opened:
        """Other jobs may have moved the channel while its facts were looked up."""
        id = opened.facts.channel.id
        if not self._owner.channels.known(id):
            return opened
        facts = msgspec.structs.replace(opened.facts, channel=self._owner.channels.get(id))
        return msgspec.structs.replace(opened, facts=facts)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._messages.drain()
        except (TimeoutError, NetError):
            self.post(Gone())

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send(message):
                if isinstance(message, Accept):
                    self._note(Record(0, Wei(0), Finish.RUNNING, "", Wei(0)))
                elif isinstance(message, Refuse):
                    self._owner.refused(message.code)
                self._send(message)
            case SendReceipt(receipt, marks):
                said, signed = self._sign(receipt)
                running = receipt.finish == Finish.RUNNING
                self._send(Chunk(said, marks) if running else Done(said, marks))
                code = Finish(receipt.finish)
                self._note(Record(receipt.output_tokens, Wei(receipt.amount), code, "", Wei(0)), signed)
            case StartEngine():
                self._spawn(self._work(effect))
            case PauseEngine():
                self._flowing.clear()
            case ResumeEngine():
                self._flowing.set()
            case StopEngine():
                self._flowing.set()
                self._hurry.set()
                if self._agent is not None and self._agent.engine is not None:
                    self._agent.engine.cancel(self._engine_id)
            case PersistVoucher(voucher):
                self._owner.later(self._persist(voucher))
            case SubmitLock(lock):
                self._owner.later(self._keep_lock(lock))
            case Record():
                self._note(effect)
                self._keep(effect.sketch)
                self._owner.ended(effect)
            case Hangup():
                pass
            case _:
                assert_never(effect)

    def _sign(self, receipt: Receipt) -> tuple[bytes, bytes]:
        """What the payer gets, and what is signed of it by now: nothing where the payer waits for many at once."""
        assert self.session is not None
        opening, owner = self.session.opening, self._owner
        if isinstance(opening, BareOpen) and receipt.finish != Finish.RUNNING:
            job, attempt = JobId(opening.job), opening.attempt
            peer = Address(self._stream.peer)

            def keep(signed: SignedReceipt) -> None:
                owner.ledger.note_receipt(job, attempt, signed.pack(), owner.clock())

            if owner.binder.put(peer, opening.sheaves, receipt, keep):
                return receipt.words(), b""
        packed = receipt.sign(owner.court, owner.key).pack()
        return packed, packed

    def _send(self, message: msgspec.Struct) -> None:
        try:
            self._messages.send(message)
        except NetError:
            self.post(Gone())

    # The payer

    async def _read(self) -> None:
        while True:
            try:
                message = await self._messages.recv()
            except LadingError:
                message = None
            match message:
                case Pay(voucher):
                    self.post(Paid(voucher))
                case Cancel():
                    self.post(Cancelled())
                case _:
                    self.post(Gone())
                    return

    async def _persist(self, voucher: SignedVoucher) -> None:
        assert self.session is not None
        try:
            await self._owner.keep_voucher(self._id(), voucher, self._stream.peer)
        except LadingError as error:
            self.post(PersistFailed(str(error)))
        else:
            self.post(Persisted(Wei(voucher.value.cumulative)))

    async def _keep_lock(self, lock: SignedLock) -> None:
        await self._owner.keep_lock(self._id(), lock, self._stream.peer)

    def _id(self) -> ChannelId:
        assert self.session is not None
        return core.channel_id(self.session.opening, self.session.offer.terms)

    # The engine

    async def _work(self, order: StartEngine) -> None:
        assert self._agent is not None
        engine = self._agent.engine
        if engine is None:
            self.post(EngineFailed("engine_crashed", "The agent's engine is down."))
            return
        if isinstance(order.request, EmbedRequest):
            answer = await engine.embed(port.Embed(self._engine_id, order.request))
            self._heard(answer)
            return
        ahead = self._ahead(order.ahead)
        generate = port.Generate(self._engine_id, order.request, order.emitted, ahead, order.job)
        stream = cast(AsyncGenerator[port.Event, None], engine.generate(generate))
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                await self._flowing.wait()
                if isinstance(event, port.Run):
                    await self._room.acquire()
                    await self._hold_pace(len(event.ids))
                self._heard(event)

    def _ahead(self, credit: int) -> int:
        """How far the engine may run ahead: no further than is paid for, and under a pace only a small step."""
        pace = self._owner.pace
        step = max(1, round(pace * PACED_STEP_SECONDS)) if pace > 0 else 0
        return min((bound for bound in (credit, step) if bound), default=0)

    async def _hold_pace(self, tokens: int) -> None:
        """Deliver no faster than the operator allows."""
        pace = self._owner.pace
        if pace <= 0:
            return
        loop = asyncio.get_running_loop()
        self._next_at = max(self._next_at, loop.time()) + tokens / pace
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_at):
                await self._hurry.wait()

    def _heard(self, event: port.Event | port.Embedded) -> None:
        if isinstance(event, port.Finished | port.Failed | port.Embedded):
            self._free_slot()
        match event:
            case port.Started():
                self.post(EngineStarted(event.prompt_tokens, event.prompt_hash))
            case port.Traced():
                self.post(EngineTraced(event.sketch))
            case port.Run():
                self.post(EngineRun(event.first, event.ids, event.text, event.sketch, event.chances))
            case port.Finished():
                self.post(EngineFinished(_FINISHES[event.finish]))
            case port.Failed():
                if event.code in ("engine_died", "timeout", "resource_exhausted") and self._agent is not None:
                    self._agent.suspect()
                self.post(EngineFailed(_CODES.get(event.code, event.code), f"{event.message} {event.hint}".strip()))
            case port.Embedded():
                self.post(EngineRows(event.width, b"".join(event.vectors), event.tokens))
            case _:
                assert_never(event)

    # The end

    def _note(self, record: Record, receipt: bytes = b"") -> None:
        session = self.session
        assert session is not None
        channel = self._owner.channels.get(self._id())
        row = AttemptRow(
            JobId(session.opening.job),
            session.opening.attempt,
            channel.id,
            session.offer.agent,
            record.output_tokens,
            record.amount,
            record.finish,
            record.code,
            receipt,
            self._owner.clock(),
        )
        self._owner.ledger.note_attempt(row, channel.earned, Address(self._stream.peer))

    def _keep(self, sketch: tuple[bytes, ...]) -> None:
        if sketch:
            assert self.session is not None
            opening, owner = self.session.opening, self._owner
            kept = KeptSketch(Address(self._stream.peer), b"".join(sketch))
            owner.ledger.keep_sketch(JobId(opening.job), opening.attempt, kept, owner.clock())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.post(EngineFailed("engine_error", f"The engine failed: {error}."))

    async def _wind_up(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
