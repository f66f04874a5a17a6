"""Carries a job to its end: chooses hosts, pays as work arrives, and goes on elsewhere when a host is lost.

All rules are in lading_protocol.job and lading.core.matching; this module owns the streams, the timers and the order
in which a voucher is stored, then sent. Whatever ends a job, each host is promised exactly what it delivered.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable

import msgspec

from lading.core.matching import Candidate, Want, rank
from lading.dispatch.attempt import Attempt, StreamCut
from lading.dispatch.directory import Directory
from lading.dispatch.purse import ChannelKey, Purse
from lading.errors import BadRequest, JobLost, NoHost, OutOfFunds
from lading_contracts.deployment import Deployment
from lading_net.errors import NetError
from lading_net.ports import Link, Transport
from lading_protocol import VERSION
from lading_protocol.ids import Address, AgentId, Digest, JobId, Wei, short
from lading_protocol.job import (
    Deliver,
    DeliverRows,
    Finished,
    JobSpec,
    JobState,
    Resume,
    begin_attempt,
    start,
)
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import JOB, EmbedRequest, Open, Request
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price, attempt_amount, format_amount, worst_case
from lading_protocol.receipts import Finish, SignedReceipt

DIAL_SECONDS = 5.0
# A request the host will never take, whichever host it is.
HOPELESS = frozenset({"bad_request", "too_long"})


class Payer(msgspec.Struct, frozen=True):
    """Who pays: `key` signs vouchers for `payer`'s deposit; `limit` (wei) bounds all its locks, landed or not."""

    key: PrivateKey
    payer: Address
    limit: Wei


class Ask(msgspec.Struct, frozen=True):
    """`batch` work gives way to everything else."""

    agent: AgentId
    request: Request
    max_price: Price | None = None
    batch: bool = False


class Started(msgspec.Struct, frozen=True):
    """A host has accepted; sent before the first piece, again if that host drops out before it."""

    job: JobId
    host: Address
    offer: KnownOffer
    prompt_tokens: int


class Piece(msgspec.Struct, frozen=True):
    """Output tokens from absolute index `first` on."""

    first: int
    ids: tuple[int, ...]
    text: str


class Rows(msgspec.Struct, frozen=True):
    """All vectors of an embedding, float32 little endian."""

    width: int
    data: bytes


class Moved(msgspec.Struct, frozen=True):
    """A host dropped out; the job goes on elsewhere."""

    host: Address
    code: str
    reason: str


class Part(msgspec.Struct, frozen=True):
    """What one host delivered and is promised for it (wei). `marks` are those of its receipt's commitment."""

    host: Address
    offer: KnownOffer
    attempt: int
    first: int
    tokens: int
    amount: Wei
    receipt: SignedReceipt | None
    marks: tuple[bytes, ...] = ()


class Ended(msgspec.Struct, frozen=True):
    """The job's account. `finish` is RUNNING when it was lost."""

    job: JobId
    request: Request
    agent: AgentId
    payer: Address
    signer: Address
    finish: Finish
    prompt_tokens: int
    prompt_hash: bytes
    emitted: tuple[int, ...]
    vectors: bytes
    parts: tuple[Part, ...]

    @property
    def output_tokens(self) -> int:
        return len(self.emitted)

    @property
    def cost(self) -> Wei:
        return Wei(sum(part.amount for part in self.parts))


Event = Started | Piece | Rows | Moved | Ended


class Refusal(BadRequest):
    """A host refused in a way that no other host would answer differently; `code` is the host's."""


class Limits(msgspec.Struct, frozen=True):
    """Seconds a host may be silent before the first token and between tokens, and hosts tried for one job."""

    first: float = 30.0
    between: float = 8.0
    attempts: int = 8


class Dispatcher:
    """`clock` gives Unix seconds, `rng` job ids. `on_end` is called once for every job that reached a host."""

    def __init__(
        self,
        transport: Transport,
        directory: Directory,
        purse: Purse,
        network: Deployment,
        clock: Callable[[], float],
        rng: random.Random,
        limits: Limits | None = None,
        on_end: Callable[[Ended], None] = lambda ended: None,
    ) -> None:
        self.transport = transport
        self.directory = directory
        self.purse = purse
        self.network = network
        self.clock = clock
        self.rng = rng
        self.limits = limits or Limits()
        self.on_end = on_end
        # What running jobs may still cost, by channel: vouchers for all of them must stay within what is locked.
        self.reserved: dict[ChannelKey, int] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, payer: Payer, ask: Ask, job: JobId | None = None) -> AsyncGenerator[Event, None]:
        """The events of one job, Ended last. Closing the generator cancels the job.

        Raises NoHost, OutOfFunds, JobLost, Refusal, PurseError.
        """
        run = _Run(self, payer, ask, job or JobId(self.rng.randbytes(32)))
        try:
            async for event in run.events():
                yield event
        finally:
            run.abandon()

    def later(self, work: "asyncio.Task[None]") -> None:
        """Keep a background task alive until it is done."""
        self._background.add(work)
        work.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """Wait for cancelled jobs to be accounted for."""
        while self._background:
            await asyncio.gather(*self._background, return_exceptions=True)


class _Run:
    """One job on its way."""

    def __init__(self, owner: Dispatcher, payer: Payer, ask: Ask, job: JobId) -> None:
        self.owner = owner
        self.payer = payer
        self.ask = ask
        self.state: JobState = start(JobSpec(job, ask.request, payer.key.address))
        self.parts: list[Part] = []
        self.tried: set[Address] = set()
        self.reasons: list[str] = []
        self.current: Attempt | None = None
        self.announced = False
        self.reported = False
        self.reservation: tuple[ChannelKey, int] | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        while self.state.finish is Finish.RUNNING:
            if self._complete():
                self.state = msgspec.structs.replace(self.state, finish=Finish.LENGTH)
                break
            offer = self._choose()
            self.tried.add(offer.host)
            attempt = await self._open(offer)
            if attempt is None:
                continue
            self.current = attempt
            async for event in self._play(attempt):
                yield event
            self._settle(attempt)
        self._report()
        yield self._ended()

    def _complete(self) -> bool:
        """Every token that was asked for is here, though the host did not live to say so."""
        request = self.ask.request
        return not isinstance(request, EmbedRequest) and len(self.state.emitted) == request.max_tokens

    def _choose(self) -> KnownOffer:
        owner = self.owner
        want = Want(self.ask.request, self.ask.max_price, frozenset(self.tried))
        ranked: list[Candidate] = []
        if len(self.tried) < owner.limits.attempts:
            ranked, lost = rank(owner.directory.candidates(self.ask.agent), want, owner.clock())
        else:
            lost = []
        if ranked:
            return ranked[0].offer
        reasons = self.reasons + [str(one) for one in lost if one.code != "tried"]
        if self.state.emitted:
            self._report()
            why = "; ".join(reason.rstrip(".") for reason in reasons)
            raise JobLost(f"The answer broke off after {len(self.state.emitted)} tokens: {why}.")
        raise NoHost(reasons)

    async def _open(self, offer: KnownOffer) -> Attempt | None:
        """A running attempt, or None with the reason noted."""
        owner, payer = self.owner, self.payer
        key = ChannelKey(
            payer.key.address,
            offer.host,
            offer.terms,
            owner.purse.epoch(payer.key.address, offer.host, offer.terms),
        )
        lock = self._lock(offer, key)
        try:
            link = await self._link(offer)
            stream = await link.open(JOB)
        except (NetError, TimeoutError) as error:
            reason = str(error) or "did not answer in time"
            self.reasons.append(f"host {short(offer.host)} is unreachable: {reason}")
            owner.directory.failed(offer.host, owner.clock(), blame=False)
            self._release()
            return None
        self.state = begin_attempt(self.state, offer, key.epoch)
        opening = Open(
            version=VERSION,
            job=self.state.spec.job,
            attempt=self.state.attempts - 1,
            offer=offer.id,
            signer=payer.key.address,
            epoch=key.epoch,
            request=self.ask.request,
            emitted=self.state.emitted,
            lock=lock,
            voucher=owner.purse.channel(key).voucher,
        )
        owner.directory.started(offer.host)
        return Attempt(stream, opening, offer, key, first=len(self.state.emitted))

    async def _link(self, offer: KnownOffer) -> Link:
        for link in self.owner.transport.links():
            if link.peer == offer.host and not link.closed.is_set():
                return link
        error: Exception = NetError("it advertises no address and has no link to us")
        for endpoint in offer.detail.endpoints:
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    return await self.owner.transport.dial(endpoint, offer.host)
            except (NetError, TimeoutError) as failure:
                error = failure
        raise error

    def _lock(self, offer: KnownOffer, key: ChannelKey) -> bytes:
        """Enough cover for the worst case of this job, before any work. Raises OutOfFunds."""
        owner, payer, request = self.owner, self.payer, self.ask.request
        held = owner.purse.channel(key)
        prompt, output = worst_case(request, offer.detail.context)
        need = attempt_amount(offer.price, prompt, len(self.state.emitted), max(output - len(self.state.emitted), 0))
        target = held.cumulative + owner.reserved.get(key, 0) + need
        if target <= held.locked:
            return self._reserve(key, need, held.lock)
        room = held.locked + self.payer.limit - owner.purse.locked(payer.key.address)
        if target > room:
            missing = Wei(target - room)
            shown = format_amount(missing, owner.network.decimals, 6)
            raise OutOfFunds(missing, f"{shown} {owner.network.symbol}")
        lock = owner.purse.lock(payer.key, key, min(room, target + held.cumulative + 3 * need))
        return self._reserve(key, need, lock)

    def _reserve(self, key: ChannelKey, need: int, lock: bytes) -> bytes:
        self.reservation = (key, need)
        self.owner.reserved[key] = self.owner.reserved.get(key, 0) + need
        return lock

    def _release(self) -> None:
        """The attempt is over: what it really cost is in the channel's vouchers now."""
        if self.reservation is None:
            return
        key, need = self.reservation
        self.reservation = None
        left = self.owner.reserved.pop(key) - need
        if left:
            self.owner.reserved[key] = left

    async def _play(self, attempt: Attempt) -> AsyncGenerator[Event, None]:
        owner, limits = self.owner, self.owner.limits
        attempt.send_open()
        while self.state.attempt is not None and self.state.finish is Finish.RUNNING:
            patience = limits.between if attempt.count else limits.first
            event = await attempt.next(patience)
            self.state, effects = attempt.apply(self.state, event, owner.network.court_domain, owner.clock())
            if attempt.should_pay(event):
                self._pay(attempt)
            if not self.announced and self.state.attempt is not None and self.state.attempt.accepted is not None:
                self.announced = True
                yield Started(self.state.spec.job, attempt.offer.host, attempt.offer, self.state.prompt_tokens)
            for effect in effects:
                match effect:
                    case Deliver(first, ids, text):
                        yield Piece(first, ids, text)
                    case DeliverRows(width, data):
                        yield Rows(width, data)
                    case Resume(code, reason, blame):
                        self.announced = bool(self.state.emitted)
                        self._lost(attempt, code, reason, blame)
                        yield Moved(attempt.offer.host, code, reason)
                    case Finished():
                        owner.directory.worked(attempt.offer.host)
                    case _:
                        pass

    def _lost(self, attempt: Attempt, code: str, reason: str, blame: bool) -> None:
        self._settle(attempt)
        self.reasons.append(f"host {short(attempt.offer.host)} dropped out ({code}): {reason}")
        if code in HOPELESS and not self.state.emitted:
            raise Refusal(reason, code=code)
        if blame or isinstance(attempt.last, StreamCut):
            self.owner.directory.failed(attempt.offer.host, self.owner.clock(), blame=blame)

    def _pay(self, attempt: Attempt) -> None:
        """Promise what is owed and not yet promised; stored first, then sent."""
        more = attempt.owed - attempt.promised
        if more > 0:
            voucher = self.owner.purse.pay(self.payer.key, attempt.key, more)
            attempt.promised = Wei(attempt.promised + more)
            attempt.send_voucher(voucher)

    def _settle(self, attempt: Attempt) -> None:
        """The attempt is over: promise the rest, note the part, let the stream go. Once."""
        if attempt.settled:
            return
        attempt.settled = True
        self.current = None
        try:
            self._pay(attempt)
        finally:
            self._close_account(attempt)

    def _close_account(self, attempt: Attempt) -> None:
        self._release()
        self.owner.directory.ended(attempt.offer.host)
        if attempt.count or attempt.owed or attempt.receipt is not None:
            self.parts.append(
                Part(
                    attempt.offer.host,
                    attempt.offer,
                    attempt.number,
                    attempt.first,
                    attempt.count,
                    attempt.owed,
                    attempt.receipt,
                    attempt.marks,
                )
            )
        self.owner.later(asyncio.ensure_future(attempt.close()))

    def abandon(self) -> None:
        """The consumer is gone: cancel the running attempt, and account for it in the background."""
        attempt = self.current
        if attempt is None or attempt.settled:
            self._release()
            self._report()
            return
        self.current = None
        self.owner.later(asyncio.ensure_future(self._wind_down(attempt)))

    async def _wind_down(self, attempt: Attempt) -> None:
        attempt.send_cancel()
        try:
            async with asyncio.timeout(2.0):
                while self.state.attempt is not None and self.state.finish is Finish.RUNNING:
                    event = await attempt.next(2.0)
                    domain, now = self.owner.network.court_domain, self.owner.clock()
                    self.state, _ = attempt.apply(self.state, event, domain, now)
        except TimeoutError:
            pass
        finally:
            if self.state.finish is Finish.RUNNING:
                self.state = msgspec.structs.replace(self.state, finish=Finish.CANCELLED, attempt=None)
            self._settle(attempt)
            self._report()

    def _report(self) -> None:
        if self.parts and not self.reported:
            self.reported = True
            self.owner.on_end(self._ended())

    def _ended(self) -> Ended:
        state = self.state
        return Ended(
            job=state.spec.job,
            request=state.spec.request,
            agent=self.ask.agent,
            payer=self.payer.payer,
            signer=self.payer.key.address,
            finish=state.finish,
            prompt_tokens=state.prompt_tokens,
            prompt_hash=Digest(state.prompt_hash),
            emitted=state.emitted,
            vectors=state.vectors,
            parts=tuple(self.parts),
        )
