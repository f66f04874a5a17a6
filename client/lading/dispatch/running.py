"""One job on its way: an attempt at one host after another, until the answer is whole.

Owns the timers of the job and the order in which a voucher is stored, then sent. Which host, how long to wait and
whether to move is decided in core; what is owed, by the job machine of the protocol.
"""

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from lading.core.denials import BLAMELESS, HOPELESS, PAYERS
from lading.core.failover import CRASHES, deadly_key, weight_of
from lading.core.matching import NOBODY, RUSH, Want, aim_of
from lading.core.near import Pick
from lading.dispatch.account import account_of
from lading.dispatch.attempt import Attempt, Stalled, StreamCut
from lading.dispatch.events import (
    Ask,
    Ended,
    Listener,
    Moved,
    Payer,
    Piece,
    Refusal,
    Rows,
    Signed,
    Started,
)
from lading.dispatch.hedge import Race
from lading.dispatch.opening import Asking
from lading.errors import BadRequest, JobLost, NoHost, OutOfFunds, Quarantined
from lading_net.dialling import dial_any
from lading_net.errors import NetError
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, JobId, Wei, short
from lading_protocol.job import (
    Deliver,
    DeliverRows,
    Effect,
    Finished,
    JobSpec,
    JobState,
    Resume,
    begin_attempt,
    start,
)
from lading_protocol.job import Event as HostEvent
from lading_protocol.messages import JOB, Chunk, Done, EmbedRequest
from lading_protocol.pricing import prompt_bound
from lading_protocol.receipts import Finish

if TYPE_CHECKING:
    from lading.dispatch.dispatcher import Dispatcher
    from lading.dispatch.scout import Scout

DIAL_SECONDS = 5.0
# How long a host has for its last word on a job that is not wanted any more.
LAST_WORD_SECONDS = 2.0
# How often a stream that is held looks again whether it may move.
LOOK_SECONDS = 0.05
# How long a host that had no slot for a job is not asked again for it.
REST_SECONDS = 1.0
RUNNING: Final = Finish.RUNNING
# After so many times a host has no right to stop a batch job again, and never had one to stop another.
MOST_PREEMPTED = 3
MOST_REASONS = 16


class Run:
    def __init__(self, owner: "Dispatcher", payer: Payer, ask: Ask, job: JobId, listener: Listener) -> None:
        request = ask.request
        self.most = None if type(request) is EmbedRequest else request.max_tokens
        if ask.emitted and (self.most is None or len(ask.emitted) > self.most):
            raise BadRequest("More tokens are there already than the answer may have.")
        self.owner = owner
        self.payer = payer
        self.ask = ask
        self.listener = listener
        self.state: JobState = start(JobSpec(job, request, payer.key.address), ask.emitted)
        self.weight = weight_of(prompt_bound(request))
        self.settled: list[tuple[Attempt, bool]] = []
        self.tried: set[Address] = set()
        self.resting: dict[Address, float] = {}
        self.reasons: list[str] = []
        self.hopeless: dict[Address, Refusal] = {}
        self.asking = Asking(owner, ask)
        self.spent = 0
        self.current: Attempt | None = None
        self.live: list[Attempt] = []
        self.dropping: set[asyncio.Task[None]] = set()
        self.opened = 0
        self.moves = 0
        self.preempted = 0
        self.parked_at: float | None = None
        self.broken = False
        self.announced = False
        self.reported = False
        self.ended = False
        self.began = self.owner.loop.time()

    async def carry(self) -> None:
        """To its end; whatever ends it, what runs is accounted for."""
        self.owner.failover.begin()
        try:
            while self.state.finish is RUNNING:
                if len(self.state.emitted) == self.most:  # all is here, though the host did not live to say so
                    self.state.end(Finish.LENGTH)
                    break
                if self.opened:
                    await self.listener.drain()  # what happened is taken note of before the job goes on
                attempt = await self._open_next()
                if attempt is not None:
                    self.settle(await self._play(attempt))
            if self.dropping:
                self.listener.lull()
                await asyncio.wait(self.dropping, timeout=2 * LAST_WORD_SECONDS)  # each is over before that
            if not self.ended:
                self._end()
                self.listener.lull()
        finally:
            self._abandon()

    # Which host

    async def _waited(self) -> Pick:
        """A host, though there is none at once."""
        pick: Pick | None = None
        if self.preempted:
            pick = await self.owner.line.wait(self.ask.agent, self.began, self.choose, self._patience())
        if pick is None and self.owner.scout is not None:
            pick = await self._from_elsewhere(self.owner.scout)
        if pick is None:
            raise self._nobody()
        return pick

    async def _from_elsewhere(self, scout: "Scout") -> Pick | None:
        """A host that only others know of. Where some are merely full, the job is better off in the queue meanwhile."""
        if not self._may_try():
            return None
        want = self._want()
        if not self.state.emitted and any("(busy)" in reason for reason in self.reasons):
            scout.want_more(self.ask.agent, aim_of(want))
            return None
        return self.choose() if await scout.bring(self.ask.agent, want) else None

    def _may_try(self) -> bool:
        return len(self.tried) < self.owner.limits.attempts

    def _elsewhere(self) -> bool:
        """Whether another host could go on with the job now."""
        owner = self.owner
        return self._may_try() and owner.directory.has_host(self.ask.agent, self._want(), owner.clock())

    def choose(self) -> Pick | None:
        """A host that goes on with the job now."""
        if not self._may_try():
            return None
        owner, agent = self.owner, self.ask.agent
        want, now = self._want(), owner.clock()
        if denied := owner.denials.hosts(self.payer.key.address, now):
            rather = self._want(denied)
            if owner.directory.has_host(agent, rather, now):
                want = rather
        return owner.directory.choose(agent, want, now, owner.rng)

    def _patience(self) -> float:
        """How much longer the job waits for a slot, since it last got one on."""
        now = self.owner.loop.time()
        self.parked_at = now if self.parked_at is None else self.parked_at
        return max(0.0, self.parked_at + self.owner.limits.parked - now)

    def _want(self, others: Collection[Address] = ()) -> Want:
        """Without those `others`, too."""
        ask, excluded = self.ask, NOBODY
        if self.tried or self.resting or others:
            now = self.owner.loop.time()
            resting = [host for host, until in self.resting.items() if until > now]
            excluded = frozenset((*self.tried, *resting, *others))
        # One that was stopped for others waits until a host has room: it would clear no slot, and only ask in vain.
        idle, rush = ask.batch and self.preempted > 0, not ask.batch and len(self.tried) >= RUSH
        return Want(ask.request, ask.max_price, excluded, ask.filters, len(self.state.emitted), idle, rush)

    def _nobody(self) -> LadingError:
        owner = self.owner
        lost = owner.directory.refusals(self.ask.agent, self._want(), owner.clock()) if self._may_try() else []
        reasons = some(self.reasons + [str(one) for one in lost if one.code != "tried"])
        new = len(self.state.emitted) - len(self.ask.emitted)
        if self.hopeless and self.tried <= self.hopeless.keys():
            return next(iter(self.hopeless.values()))  # nobody is there to say otherwise
        if new:
            why = "; ".join(reason.rstrip(".") for reason in reasons)
            return JobLost(f"The answer broke off after {new} tokens: {why}.")
        if lost and {one.code for one in lost} == {"context"}:
            return Refusal(f"Every host of this agent {lost[0].reason}.", code="too_long")
        return NoHost(reasons)

    def _check_quarantine(self) -> None:
        quarantine = self.owner.failover.quarantine
        left = quarantine.barred(deadly_key(self.ask.request), self.owner.clock())
        if left:
            raise Quarantined(len(self.state.emitted) - len(self.ask.emitted), left)

    async def _leave(self) -> None:
        """A stream whose host is gone goes on when the budget allows, or after a moment."""
        failover, left = self.owner.failover, self.owner.limits.broken
        while not failover.may_move():
            if left <= 0:
                failover.budget.force()
                return
            await asyncio.sleep(LOOK_SECONDS)
            left -= LOOK_SECONDS

    # An attempt

    async def _open_next(self) -> Attempt | None:
        """As `open`. Near prices are drawn by lot, so a cap that is nearly spent may not cover the host that was drawn:
        then one takes the job for whom enough is locked already, or the cheapest."""
        if len(self.owner.failover.quarantine):
            self._check_quarantine()
        if self.broken:
            self.broken = False
            await self._leave()
        pick = self.choose()
        if pick is None:
            pick = await self._waited()
        try:
            return await self.open(pick)
        except OutOfFunds:
            affordable = self._affordable()
            if affordable is None:
                raise
        return await self.open(affordable)

    def _affordable(self) -> Pick | None:
        owner, ask = self.owner, self.ask
        held = owner.funds.hosts(self.payer)
        picks = owner.directory.among(ask.agent, self._want(), held, owner.clock())
        done = len(self.state.emitted)
        return next((one for one in picks if owner.funds.covers(self.payer, ask, one.offer, done)), None)

    async def open(self, pick: Pick) -> Attempt | None:
        """An attempt that is ready to begin, or None with the reason noted. Raises OutOfFunds, PurseError."""
        owner, payer, offer = self.owner, self.payer, pick.offer
        self.tried.add(offer.host)
        cover = owner.funds.cover(payer, self.ask, offer, len(self.state.emitted))
        try:
            links = owner.transport.links(offer.host)
            if links:
                link = links[0]
            else:
                link = await dial_any(owner.transport, offer.detail.endpoints, offer.host, DIAL_SECONDS)
            stream = await link.open(JOB)
        except (NetError, TimeoutError) as error:
            owner.funds.release(cover)
            reason = str(error) or "did not answer in time"
            self.reasons.append(f"host {short(offer.host)} is unreachable: {reason}")
            owner.directory.failed(offer.host, owner.clock(), blame=False)
            return None
        except BaseException:
            owner.funds.release(cover)
            raise
        line = self.asking.line(link)
        state = begin_attempt(self.state, offer, cover.key.epoch, self.opened, bare=line is not None)
        self.opened += 1
        opening = self.asking.opening(link, line, state, cover, self.preempted)
        owner.directory.started(offer.host, batch=self.ask.batch)
        attempt = Attempt(owner.loop, stream, opening, pick, cover, state, line)
        self.live.append(attempt)
        return attempt

    async def _play(self, attempt: Attempt) -> Attempt:
        """Returns the attempt that was the last to run: where two raced, the winner."""
        self.current, self.state = attempt, attempt.state
        attempt.begin(self.owner.failover, self.moves, self.weight)
        if self.ask.hedge and not self.state.emitted and self.most is not None:
            await Race(self, attempt).first_token()
            attempt = self.current
        while self.state.runs:
            stalled = await attempt.flow(self._take, self.listener.lull)
            if stalled is not None:
                self._take(await self.hold(attempt, stalled))
            elif self.state.runs:
                await self.listener.drain()
        return attempt

    async def hold(self, attempt: Attempt, stalled: Stalled) -> HostEvent:
        """What a host says after all, or Stalled when the stream may leave it.

        Overload looks like a stall of every host: then nothing is gained elsewhere, so streams stay where they are as
        long as the common budget is spent, or there is nobody else, for a bounded time.
        """
        limits, failover = self.owner.limits, self.owner.failover
        clock = self.owner.loop.time
        ceiling = limits.between if attempt.count else limits.first
        began, elsewhere = clock(), self._elsewhere()
        while True:
            if elsewhere and failover.may_move():
                return stalled
            left = began - clock() + (limits.held if elsewhere else ceiling - attempt.patience)
            if left <= 0:
                failover.budget.force()
                return stalled
            event = await attempt.next(min(LOOK_SECONDS, left))
            if type(event) is not Stalled:
                return event

    def _take(self, heard: HostEvent) -> bool:
        """What the running attempt's host says; whether it goes on. The end of the answer is told at once, so that it
        leaves with the tokens that came with it."""
        owner, attempt = self.owner, self.current
        assert attempt is not None
        effects = attempt.apply(heard, owner.court, owner.clock())
        self.state = state = attempt.state
        if self.ask.told and isinstance(heard, Chunk | Done) and state.attempt is not None:
            self.listener.hear(Signed(heard.receipt, heard.marks))
        if type(heard) is Chunk:
            owner.funds.pay(self.payer, attempt)
        if not self.announced or effects:
            self.tell(attempt, effects)
        if self.state.runs:
            return True
        if self.state.finish is not RUNNING and not self.dropping:
            self.settle(attempt)
            self._end()
        return False

    def tell(self, attempt: Attempt, effects: list[Effect]) -> None:
        """What the consumer hears of it."""
        listener, state, host = self.listener, self.state, attempt.offer.host
        if not self.announced and attempt.accepted and state.attempt is not None:
            self.announced = True
            listener.hear(Started(state.spec.job, host, attempt.offer, state.prompt_tokens))
        for effect in effects:
            if type(effect) is Deliver:
                if not attempt.answered:
                    self._answered(attempt)
                cost = Wei(self.spent + attempt.owed)
                listener.hear(Piece(effect.first, effect.ids, effect.text, effect.chances, cost))
            elif type(effect) is Finished:
                self.owner.directory.worked(host)
                self.owner.directory.served(host, attempt.seconds)
            elif type(effect) is Resume:
                self.announced = bool(state.emitted)
                self.lose(attempt, effect.code, effect.reason, effect.blame)
                listener.hear(Moved(host, effect.code, effect.reason))
            elif type(effect) is DeliverRows:
                listener.hear(Rows(effect.width, effect.data))

    def _answered(self, attempt: Attempt) -> None:
        """The first tokens of this host are here."""
        attempt.answered = True
        self.parked_at = None
        self.owner.denials.forget(self.payer.key.address, attempt.offer.host)
        for host in self.hopeless:  # it could be done after all
            self.owner.directory.failed(host, self.owner.clock(), blame=False)
        self.hopeless.clear()
        self.owner.directory.answered(attempt.pick, attempt.seconds)

    def lose(self, attempt: Attempt, code: str, reason: str, blame: bool) -> None:
        """The attempt is over without an answer. Raises Refusal where no other host would answer differently."""
        self.settle(attempt)
        host = attempt.offer.host
        self.reasons.append(f"host {short(host)} dropped out ({code}): {reason}")
        if code in HOPELESS and not self.state.emitted:
            agrees = any(one.code == code for one in self.hopeless.values())
            self.hopeless[host] = Refusal(reason, code=code)
            if agrees:
                raise self.hopeless[host]
        rightly = code == "preempted" and self.ask.batch and self.preempted < MOST_PREEMPTED
        self._held_against(attempt, code, blame=blame, rightly=rightly)
        self.preempted += rightly
        if rightly or (self.preempted and code == "busy"):
            self.tried.discard(host)
            self.resting[host] = self.owner.loop.time() + REST_SECONDS
        if attempt.accepted and not rightly and code != "draining":
            self._moved(attempt, code)

    def _held_against(self, attempt: Attempt, code: str, *, blame: bool, rightly: bool) -> None:
        """What it means for the host's next jobs that it did not do this one."""
        owner, host, now = self.owner, attempt.offer.host, self.owner.clock()
        if blame or isinstance(attempt.last, StreamCut):
            owner.directory.failed(host, now, blame=blame)
        elif code in PAYERS:
            owner.denials.note(self.payer.key.address, host, now)
        elif code not in BLAMELESS and not rightly:
            owner.directory.gave_up(host, now)

    def _moved(self, attempt: Attempt, code: str) -> None:
        """A host left the stream in the middle of its work."""
        failover = self.owner.failover
        self.moves += 1
        failover.moves += 1
        stalled = isinstance(attempt.last, Stalled)
        self.broken = not stalled
        if code in CRASHES or (isinstance(attempt.last, StreamCut) and not stalled):
            key, index = deadly_key(self.ask.request), len(self.state.emitted)
            failover.quarantine.died(key, attempt.offer.host, index, code, self.owner.clock())

    # The account

    def settle(self, attempt: Attempt, *, late: bool = False, wanted: bool = True) -> None:
        """The attempt is over: promise the rest, note the part, let the stream go. Once.

        What an attempt that lost a race delivered before it heard of that is owed, too, but nobody got it: its receipt
        covers tokens that are not in the answer, so it is no evidence of anything.
        """
        if attempt.over:
            return
        owner = self.owner
        self.live.remove(attempt)
        owner.funds.settle(self.payer, attempt, late=late)
        owner.directory.ended(attempt.offer.host, batch=self.ask.batch)
        if attempt.count or attempt.owed or ((attempt.receipt or attempt.bare) and wanted):
            self.settled.append((attempt, wanted))
            self.spent += attempt.promised
            if attempt.receipt and not attempt.first and wanted:
                self.asking.proof = attempt.receipt
        if not owner.funds.tab.waits(attempt):
            owner.let_go([attempt])

    def overhear(self, attempt: Attempt, said: "asyncio.Task[HostEvent]") -> None:
        """What a host said in the very turn in which it was given up counts as if it had been heard in time."""
        if not said.cancelled() and said.exception() is None and type(said.result()) is not Stalled:
            attempt.apply(said.result(), self.owner.court, self.owner.clock())

    def drop(self, attempt: Attempt, pending: "asyncio.Task[HostEvent]") -> None:
        """Another host was first: stop this one, and settle for what it delivered until it heard of that."""

        async def dropped() -> None:
            pending.cancel()
            await asyncio.wait((pending,))
            self.overhear(attempt, pending)
            await self._wind_down(attempt, wanted=False)

        task = asyncio.ensure_future(dropped())
        self.dropping.add(task)
        task.add_done_callback(self.dropping.discard)
        self.owner.later(task)

    def _abandon(self) -> None:
        """Where the consumer is gone: cancel what runs, and account for it in the background."""
        if not self.live:
            if not self.reported:
                self._report()
            return
        self.owner.later(asyncio.ensure_future(self._account_for_all()))

    async def _account_for_all(self) -> None:
        current = [one for one in self.live if one is self.current]
        await asyncio.gather(*self.dropping, *map(self._wind_down, current), return_exceptions=True)
        for attempt in list(self.live):  # a rival that had not begun
            await self._wind_down(attempt, wanted=False)
        if self.current is not None:
            self.state = self.current.state
        if self.state.finish is Finish.RUNNING:
            self.state.end(Finish.CANCELLED)
        self._report()

    async def _wind_down(self, attempt: Attempt, *, wanted: bool = True) -> None:
        owner, late = self.owner, False
        attempt.send_cancel()
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):
                while attempt.state.runs:
                    event = await attempt.next(LAST_WORD_SECONDS)
                    attempt.apply(event, owner.court, owner.clock())
        except TimeoutError:
            late = True
        finally:
            self.settle(attempt, late=late or isinstance(attempt.last, StreamCut), wanted=wanted)

    def _end(self) -> None:
        self.ended = True
        self.listener.hear(self._report())

    def _report(self) -> Ended:
        if self.settled and not self.reported:
            self.reported = True
            self.owner.funds.tab.when_signed(self._signed)
        return account_of(self)

    def _signed(self) -> None:
        """The vouchers of all attempts are. The account has their receipts once the hosts have signed them, too."""
        sheaves = self.owner.sheaves
        if sheaves is None:
            self._account()
        else:
            sheaves.when_bound([attempt for attempt, wanted in self.settled if wanted], self._account)

    def _account(self) -> None:
        self.owner.on_end(account_of(self))


def some(reasons: list[str]) -> list[str]:
    """As many as a person reads."""
    more = len(reasons) - MOST_REASONS
    return reasons if more <= 0 else [*reasons[:MOST_REASONS], f"and so on for {more} more"]
