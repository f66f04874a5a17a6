"""The queue before the dispatcher: a job waits here until hosts have room, and comes back when all were full after all.

The rules are core.admission's. This module looks up how much room there is, sees to it that nobody waits for what it
cannot pay, and turns an answer of no into words. It never touches a job that a host has accepted.
"""

import asyncio
import hashlib
import heapq
import random
from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from lading.core.matching import BEAT_LIMIT, Filters, Want, aim_of, output_bound
from lading.dispatch import Ask, Dispatcher, Ended, Listener, Moved, Payer, Piece, Started
from lading.dispatch.dispatcher import Event
from lading.errors import NoHost, OutOfFunds
from lading_coordinator.core.admission import Admission
from lading_coordinator.core.lanes import INTERACTIVE, Band, Room, Shed, Ticket
from lading_coordinator.errors import ApiError
from lading_coordinator.metrics import Metrics
from lading_protocol.ids import Address, AgentId, JobId, Wei
from lading_protocol.messages import operation_of
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price, attempt_amount, format_amount, prompt_bound, worst_case

TICK_SECONDS = 0.05
# How long a count of free slots is used: so long, and longer where counting was much work.
LOOK_SECONDS = 0.05
LOOK_SECONDS_EACH = 2e-5
AMPLE = 64
# Bytes of a prompt that are one token, about; what a tenant is charged in the end is what the host counted.
BYTES_A_TOKEN = 4
# An answer of up to two to this power of tokens fits everywhere, more or less.
COMMON_LENGTH = 12
CHEAPEST = 8
_WORDS = {
    "queue_full": "Too many requests wait for this model already.",
    "shed": "This model has more requests than its hosts can answer soon.",
    "waited": "Every host of this model stayed busy for as long as a request may wait.",
}


class _Seen:
    __slots__ = ("room", "until")

    def __init__(self, room: Room, until: float) -> None:
        self.room: Final = room
        self.until: Final = until


class Turns:
    """Stands in for the dispatcher towards the gateway. `clock` gives Unix seconds."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        admission: Admission,
        metrics: Metrics,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._dispatcher = dispatcher
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._rng = rng
        self._waiting: dict[Ticket, asyncio.Future[Shed | None]] = {}
        self._seen: dict[bytes, _Seen] = {}
        self._some = asyncio.Event()

    async def carry(self, payer: Payer, ask: Ask, listener: Listener, job: JobId | None = None) -> None:
        """The job once it is its turn. Raises ApiError (429) beside what the dispatcher raises."""
        ticket = _ticket(payer, ask)
        heard = _Overheard(self, ticket, listener)
        if not self._begins(ticket, payer, ask):
            self._look_elsewhere(ask)
            await self._wait(ticket)
        try:
            while True:
                try:
                    await self._dispatcher.carry(payer, ask, heard, job)
                    return
                except NoHost as error:
                    if not is_full(error):
                        raise
                self._admission.refused(ticket, self._clock())
                await self._wait(ticket)
        finally:
            if ticket.state == "running":
                self._admission.finish(ticket, heard.prompt, heard.output, self._clock())
                if self._waiting:
                    self._wake(ticket.lane)

    async def tend(self) -> None:
        """Starts who waits as room comes, and turns away who waited too long, for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(TICK_SECONDS)
            for ticket, shed in self._admission.late(self._clock()):
                self._answer(ticket, shed)
            for lane in self._admission.lanes():
                self._wake(lane)
            if not self._waiting:
                self._some.clear()

    # Waiting

    def _begins(self, ticket: Ticket, payer: Payer, ask: Ask) -> bool:
        """Whether it is its turn at once. Raises ApiError (429), OutOfFunds."""
        now = self._clock()
        answer = self._admission.ask(ticket, self._room(ticket.lane, now), now, self._rng.random())
        if ticket.state == "running":
            return True
        if isinstance(answer, Shed):
            raise self._refusal(ticket, answer)
        for victim in answer:
            self._answer(victim, Shed("queue_full", 1))
        if ticket.state == "waiting":
            try:
                self._check_funds(payer, ask)
            except OutOfFunds:
                self._admission.leave(ticket)
                raise
            self._wake(ticket.lane)
        return ticket.state == "running"

    async def _wait(self, ticket: Ticket) -> None:
        if ticket.state == "running":
            return
        future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._metrics.waiting.set(len(self._waiting))
        self._some.set()
        try:
            shed = await future
        except asyncio.CancelledError:
            if ticket.state == "waiting":
                self._admission.leave(ticket)
            elif ticket.state == "running":  # its turn came at the same moment
                self._admission.finish(ticket, 0, 0, self._clock())
                self._wake(ticket.lane)
            raise
        finally:
            self._waiting.pop(ticket, None)
            self._metrics.waiting.set(len(self._waiting))
        if shed is not None:
            raise self._refusal(ticket, shed)

    def _wake(self, lane: bytes) -> None:
        now = self._clock()
        for ticket in self._admission.next(lane, self._room(lane, now), now):
            self._answer(ticket, None)

    def _answer(self, ticket: Ticket, shed: Shed | None) -> None:
        future = self._waiting.get(ticket)
        if future is not None and not future.done():
            future.set_result(shed)

    def _refusal(self, ticket: Ticket, shed: Shed) -> ApiError:
        self._metrics.shed.labels(ticket.band.name.lower(), shed.code).inc()
        return ApiError(
            429, "overloaded", _WORDS[shed.code], hint=f"Try again after {shed.retry} s.", retry_after=shed.retry
        )

    # Room and money

    def accepted(self, ticket: Ticket) -> None:
        """A host has taken the job."""
        self._admission.taken(ticket)

    def was_full(self, ticket: Ticket, host: Address) -> None:
        """A host's refusal is the truth, whatever it last reported: somebody else was there first."""
        self._dispatcher.directory.full(host, self._clock())
        self._seen.pop(ticket.lane, None)

    def _room(self, lane: bytes, now: float) -> Room:
        seen = self._seen.get(lane)
        if seen is None or seen.until <= now:
            running, waiting = self._admission.load(lane)
            room, looked = self._look(lane, now, running + waiting + AMPLE)
            seen = self._seen[lane] = _Seen(room, now + max(LOOK_SECONDS, looked * LOOK_SECONDS_EACH))
        return seen.room

    def _look(self, lane: bytes, now: float, enough: int) -> tuple[Room, int]:
        """The room of the lane's hosts, counted until there is enough; and how many were looked at."""
        slots = free = looked = 0
        for entry in self._dispatcher.directory.entries(AgentId(lane)):
            looked, known = looked + 1, entry.known
            state = self._dispatcher.directory.host(known.host)
            silent = state.beat_at is None or now - state.beat_at > BEAT_LIMIT
            if silent or state.barred or state.shunned_until > now or known.offer.expires <= now:
                continue
            slots += known.offer.slots
            free += min(state.free, known.offer.slots)
            if free >= enough:
                break
        return Room(slots, free), looked

    def _look_elsewhere(self, ask: Ask) -> None:
        """While it waits for a host that is known here, another coordinator may have one with room."""
        scout = self._dispatcher.scout
        if scout is not None:
            scout.want_more(ask.agent, aim_of(Want(ask.request, ask.max_price, filters=ask.filters)))

    def _check_funds(self, payer: Payer, ask: Ask) -> None:
        """Nobody waits for what it could not pay now. Raises OutOfFunds."""
        offers = self._dispatcher.directory.offers(ask.agent)
        costs = [(_need(known, ask), known) for known in offers]
        lacking = [self._lacking(payer, known, need) for need, known in heapq.nsmallest(CHEAPEST, costs, key=_first)]
        if lacking and min(lacking) > 0:
            missing, network = Wei(min(lacking)), self._dispatcher.network
            raise OutOfFunds(missing, f"{format_amount(missing, network.decimals, 6)} {network.symbol}")

    def _lacking(self, payer: Payer, known: KnownOffer, need: int) -> int:
        """What is missing for the job's worst case at this host, as the dispatcher would find it (wei)."""
        purse, signer = self._dispatcher.purse, payer.key.address
        key = purse.current(signer, known.host, known.terms)
        held = purse.channel(key)
        target = held.cumulative + self._dispatcher.funds.pending(key) + need
        return target - max(held.locked, held.locked + payer.limit - purse.locked(signer))


class _Overheard:
    """Listens for what the queue must know, and hands everything on."""

    __slots__ = ("_listener", "_ticket", "_turns", "output", "prompt")

    def __init__(self, turns: Turns, ticket: Ticket, listener: Listener) -> None:
        self._turns = turns
        self._ticket = ticket
        self._listener = listener
        self.prompt = self.output = 0

    def hear(self, event: Event) -> None:
        if type(event) is Piece:
            self.output += len(event.ids)
        elif type(event) is Started:
            self.prompt = event.prompt_tokens
            self._turns.accepted(self._ticket)
        elif type(event) is Moved:
            if event.code == "busy":
                self._turns.was_full(self._ticket, event.host)
        elif type(event) is Ended:
            self.prompt = event.prompt_tokens
        self._listener.hear(event)

    def lull(self) -> bool:
        return self._listener.lull()

    async def drain(self) -> None:
        await self._listener.drain()


def is_full(error: NoHost) -> bool:
    """Whether there is a host that only has no slot free, and so is worth waiting for."""
    return any("(busy)" in reason for reason in error.reasons)


def _ticket(payer: Payer, ask: Ask) -> Ticket:
    request = ask.request
    band, output = Band.BATCH if ask.batch else INTERACTIVE, output_bound(request)
    # What it insists on, so that a refusal by the few hosts that have it says nothing of the others.
    long = max(0, (output - 1).bit_length() - COMMON_LENGTH)
    wish = _named(ask.filters, ask.max_price, operation_of(request), long)
    return Ticket(payer.payer, ask.agent, band, prompt_bound(request) // BYTES_A_TOKEN, output, wish=wish)


@lru_cache(maxsize=1024)
def _named(filters: Filters, cap: Price | None, operation: str, length: int) -> bytes:
    wish = (sorted(filters.tiers), filters.region, sorted(filters.assurance), cap, operation, length)
    return hashlib.sha256(msgspec.msgpack.encode(wish)).digest()


def _need(known: KnownOffer, ask: Ask) -> int:
    prompt, output = worst_case(ask.request, known.detail.context)
    return attempt_amount(known.price, prompt, 0, output)


def _first(pair: tuple[int, KnownOffer]) -> int:
    return pair[0]
