"""One attempt's stream: messages out, events in, and the account of what this attempt delivered.

A cut stream, garbage and silence all become LinkLost, so that the job machine sees one closed set of events.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from lading.core.failover import Failover
from lading.core.near import Pick
from lading.dispatch.events import Settling
from lading.dispatch.funds import Cover
from lading.dispatch.sheaves import Line
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.eip712 import Domain, digest_of
from lading_protocol.elder import ElderOpen
from lading_protocol.errors import LadingError
from lading_protocol.heard import Heard, Joined, hear
from lading_protocol.ids import Digest, Signature, Wei
from lading_protocol.job import BARE, Effect, Event, JobState, LinkLost, Resume, apply
from lading_protocol.messages import Cancel, Pay, Tokens
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Finish, Receipt

# A timer may fire before what the network brought meanwhile was read: silence is believed after one more look.
LOOK_SECONDS: Final = 0.002
LONGEST_LOOK: Final = 1.0
# How many tokens in a row are waited for with the same patience.
STEADY: Final = 32
_CANCELLED: Final = Finish.CANCELLED
_OPEN: Final = Settling.OPEN


class StreamCut(LinkLost, frozen=True):
    """The host went away or fell silent: a fault of its connection, not a refusal."""


class Stalled(StreamCut, frozen=True):
    """Nothing came for longer than this host usually takes. It may still come."""


def _nobody() -> None: ...


class Attempt:
    """`owed` is what the host has delivered in wei, `promised` what is signed for of it or will be with the channel's
    next voucher, `unpaid` what of that is not signed for; about `ahead` the host waits for a voucher. `receipt` is the
    last one that the host has signed, packed; those in `bare` it has only sent, and signs on the `line` of its link.

    `state` is the job as this attempt sees it: while two attempts race for the first token each has its own.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        opening: ElderOpen,
        pick: Pick,
        cover: Cover,
        state: JobState,
        line: Line | None,
    ) -> None:
        self.pick = pick
        self.offer = pick.offer
        self.cover = cover
        self.state = state
        assert state.attempt is not None
        self._part = state.attempt
        self.first = self._part.first
        self.number = self._part.number
        self.answered = False
        self.promised = Wei(0)
        self.unpaid = 0
        self.ahead = attempt_amount(pick.offer.price, 0, 0, pick.offer.detail.credit)
        self.receipt = b""
        self.marks: tuple[bytes, ...] = ()
        self._covers = 0  # tokens of `receipt`
        self.bare: dict[Digest, tuple[bytes, tuple[bytes, ...], int]] = {}
        self.when_bound: Callable[[], None] = _nobody
        self.last: Event | None = None
        self.settling = _OPEN
        self.patience = 0.0
        self.opened_at = 0.0
        self._line = line
        self._opening = opening
        self._stream = stream
        self._messages: MessageStream[Heard] = MessageStream(stream, hear)
        self._failover: Failover | None = None
        self._moved = 0
        self._weight = 1.0
        self._since: float | None = None
        self._cancelled = False
        self._loop = loop
        self._take: Callable[[Event], bool] | None = None
        self._lull: Callable[[], bool] | None = None
        self._over: asyncio.Future[Stalled | None]
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = 0.0
        self._late_at: float | None = None

    def begin(self, failover: Failover, moved: int, weight: float) -> None:
        """Ask the host. `moved` is how often the stream has moved, `weight` that of its prompt."""
        self._failover, self._moved, self._weight = failover, moved, weight
        self._gaps = failover.gaps(self.offer.host)
        self.patience = failover.first_limit(self.offer.host, weight, moved)
        self.opened_at = self._loop.time()
        self._send(self._opening)

    @property
    def accepted(self) -> bool:
        return self._part.accepted is not None

    @property
    def count(self) -> int:
        """Tokens that came."""
        return self._part.count

    @property
    def owed(self) -> Wei:
        return self._part.owed

    @property
    def seconds(self) -> float:
        """Since the host was asked."""
        return self._loop.time() - self.opened_at

    def send_voucher(self, voucher: bytes) -> bool:
        """Whether it could be sent."""
        return self._send(Pay(voucher))

    @property
    def over(self) -> bool:
        """Its account is closed."""
        return self.settling is not _OPEN

    def send_cancel(self) -> None:
        self._cancelled = True
        self._send(Cancel())

    # What the host says

    async def flow(self, take: Callable[[Event], bool], lull: Callable[[], bool]) -> "Stalled | None":
        """Hands on what the host says the moment it arrives, until `take` says that it is over; or until `lull`, called
        whenever nothing more is at hand, says that no more is wanted for now.

        Returns None then, and Stalled when nothing came for longer than this host usually takes. What they raise, this
        raises.
        """
        over: asyncio.Future[Stalled | None] = self._loop.create_future()
        self._over = over
        self._take, self._lull, self._since = take, lull, self._loop.time()
        try:
            self._pump(waited=False)
            if not over.done():
                self._stream.watch(self._pump)
                self._look_in(self.patience)
            stalled = await over
            if stalled is None:
                self._since = None
            return stalled
        finally:
            self._take = self._lull = self._late_at = None
            self._stream.watch(None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _pump(self, *, waited: bool = True) -> None:
        """Something has arrived."""
        take, lull, over = self._take, self._lull, self._over
        if take is None or lull is None or over.done():
            return
        self._take = None  # what is done about it may call here again
        goes_on = True
        try:
            while goes_on and (event := self._poll(waited=waited)) is not None:
                waited = False
                goes_on = take(event)
            goes_on = lull() and goes_on
        except BaseException as error:
            if not over.done():
                over.set_exception(error)
            return
        if not goes_on:
            if not over.done():  # taking it may have cancelled the job
                over.set_result(None)
            return
        self._take = take
        if not waited:
            now = self._loop.time()
            self._since, self._late_at = now, None
            # Before the first token a host has more time than between two; when more was given, a look finds out.
            if self._timer is not None and self._look_at > now + self.patience:
                self._timer.cancel()
                self._look_in(self.patience)

    def _poll(self, *, waited: bool) -> Event | None:
        messages = self._messages
        try:
            message = messages.poll()
        except LadingError as error:
            return StreamCut(error.message)
        if message is None:
            return StreamCut("the host closed the stream") if messages.ended else None
        if (waited or not self._part.count) and _has_tokens(message):
            self._note(self._loop.time())
        return message

    def _look(self) -> None:
        """The patience of the moment when the timer was set is over: has the host been silent since?"""
        if self._over.done():
            return
        now, since = self._loop.time(), self._since or 0.0
        left = since + self.patience - now
        if left > 1e-6:
            self._late_at = None
        elif self._late_at is None:  # see LOOK_SECONDS
            self._late_at, left = now, min(max(-left, LOOK_SECONDS), LONGEST_LOOK)
        else:
            self._over.set_result(Stalled(f"nothing came for {now - since:.2g} s"))
            return
        self._look_in(left)

    def _look_in(self, seconds: float) -> None:
        self._look_at = self._loop.time() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    async def next(self, patience: float | None = None) -> Event:
        """The host's next message, Stalled after `patience` seconds (by default its own), StreamCut at its end."""
        waited = not self._messages.waiting
        try:
            if waited:
                message = await self._wait(self.patience if patience is None else patience)
            else:
                message = await self._messages.recv()
        except TimeoutError:
            return Stalled(f"nothing came for {self._loop.time() - (self._since or 0):.2g} s")
        except LadingError as error:
            return StreamCut(error.message)
        if message is not None and _has_tokens(message) and (waited or not self.count):
            self._note(self._loop.time())
        self._since = None
        return StreamCut("the host closed the stream") if message is None else message

    async def _wait(self, patience: float) -> Heard | None:
        clock = self._loop.time
        began = clock()
        if self._since is None:
            self._since = began
        try:
            async with asyncio.timeout(patience):
                return await self._messages.recv()
        except TimeoutError:
            late = clock() - began - patience
        async with asyncio.timeout(min(max(late, LOOK_SECONDS), LONGEST_LOOK)):
            return await self._messages.recv()

    def _note(self, now: float) -> None:
        """A host is measured by what it took itself, not by how long its tokens lay here unread."""
        if self._failover is None:
            return
        if self.count:
            self._gaps.note(now - (self._since or now))
            if self.count % STEADY:
                return
        else:
            self._failover.note_first(self.offer.host, now - self.opened_at, self._weight)
        self.patience = self._failover.gap_limit(self.offer.host, self._moved)

    def apply(self, event: Event, domain: Domain, now: float) -> list[Effect]:
        self.last = event
        state, part = self.state, self._part
        before = part.receipt
        effects = apply(state, event, domain, now)
        if part.receipt is not before:
            self._hear(part.receipt, part.marks, domain)
        if state.finish is _CANCELLED and not self._cancelled:
            state.end(Finish.RUNNING)
            return [Resume("host_lied", "The host called the job cancelled, which nobody did.", True)]
        return effects

    def _hear(self, receipt: bytes, marks: tuple[bytes, ...], domain: Domain) -> None:
        if len(receipt) > BARE or self._line is None:
            self.receipt, self.marks, self._covers = receipt, marks, self.count
            return
        digest = digest_of(Receipt, receipt, domain)
        self.bare[digest] = receipt, marks, self.count
        self._line.expect(digest, self)

    def bound(self, digest: Digest, signature: Signature) -> None:
        """The host has signed a receipt that was bare."""
        receipt, marks, covers = self.bare.pop(digest)
        if covers >= self._covers:
            self.receipt, self.marks, self._covers = receipt + signature, marks, covers
        self._all_bound()

    def unbound(self, digest: Digest) -> None:
        """It will not."""
        del self.bare[digest]
        self._all_bound()

    def _all_bound(self) -> None:
        if not self.bare:
            told, self.when_bound = self.when_bound, _nobody  # who was told holds this attempt: let go of it
            told()

    async def close(self) -> None:
        """Its stream. How long that may take is the caller's to bound."""
        try:
            await self._stream.close()
        except NetError:
            pass

    def _send(self, message: msgspec.Struct) -> bool:
        # A host that is gone cannot be told; the voucher is in the purse and waits for it there.
        try:
            self._messages.send(message)
        except NetError:
            return False
        return True


def _has_tokens(message: Heard) -> bool:
    return type(message) is Joined or isinstance(message, Tokens)
