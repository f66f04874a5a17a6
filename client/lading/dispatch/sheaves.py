"""What hosts have still to sign of what they said: bare receipts, until the signature that binds them comes.

One stream a link, which this side opens; a host that does not know it signs every receipt, as before. The link proves
whose the receipts are, so nobody waits here for a signature but the account of a job, which is nothing without.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream
from lading_protocol.eip712 import Domain
from lading_protocol.errors import BadSignature, LadingError
from lading_protocol.ids import Address, Digest, Signature, short
from lading_protocol.messages import SHEAVES, Binding, BoundReceipts, FromBinder, WantSheaves
from lading_protocol.sheaves import signer, spread

if TYPE_CHECKING:
    from lading.dispatch.attempt import Attempt

log = logging.getLogger(__name__)
# A host binds within milliseconds. One that has not after so long will not, however busy this program is.
LATE_SECONDS = 5.0
# For so long an account waits when the program ends.
LAST_SECONDS = 0.5
FEW = 64
_decoder = msgspec.msgpack.Decoder(FromBinder)


class Sheaves:
    """`blame` hears of a host that does not sign, or signs wrongly. `domain` is the audit court's."""

    def __init__(self, domain: Domain, rng: random.Random, blame: Callable[[Address], None]) -> None:
        self._domain = domain
        self._rng = rng
        self._blame = blame
        self._lines: dict[Link, Line] = {}
        self._most = FEW
        self._running: set[asyncio.Task[None]] = set()
        self._late: set[_Waits] = set()

    def line(self, link: Link) -> "Line | None":
        """The link's stream, once its host has said that it binds."""
        line = self._lines.get(link)
        if line is None:
            if len(self._lines) >= self._most:
                self._lines = {one: line for one, line in self._lines.items() if not one.closed.is_set()}
                self._most = max(FEW, 2 * len(self._lines))
            line = self._lines[link] = Line(self, Address(link.peer), self._rng.randbytes(32))
            running = asyncio.ensure_future(line.run(link, self._domain))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        return line if line.binds else None

    def lied(self, host: Address, why: str) -> None:
        log.warning("host %s does not sign what it said: %s", short(host), why)
        self._blame(host)

    def when_bound(self, attempts: "Iterable[Attempt]", report: Callable[[], None]) -> None:
        """Calls it once all that will be signed for these is."""
        bare = [one for one in attempts if one.bare]
        if not bare:
            report()
            return
        waits = _Waits(self._late, len(bare), report)
        for one in bare:
            one.when_bound = waits.less

    async def settle(self, patience: float = LATE_SECONDS) -> None:
        """Until what is awaited now is there, or that long."""
        if self._late:
            await asyncio.wait([waits.told() for waits in self._late], timeout=patience)

    async def close(self) -> None:
        await self.settle(LAST_SECONDS)
        for running in list(self._running):
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


class _Waits:
    """An account, in `late` until the last of its attempts has what it waits for."""

    __slots__ = ("_late", "_left", "_report", "_told")

    def __init__(self, late: "set[_Waits]", left: int, report: Callable[[], None]) -> None:
        self._late = late
        self._left = left
        self._report = report
        self._told: asyncio.Future[None] | None = None
        late.add(self)

    def less(self) -> None:
        self._left -= 1
        if not self._left:
            self._late.discard(self)
            self._report()
            if self._told is not None and not self._told.done():
                self._told.set_result(None)

    def told(self) -> "asyncio.Future[None]":
        """Done when it is reported."""
        if self._told is None:
            self._told = asyncio.get_running_loop().create_future()
        return self._told


class Line:
    """One host's signatures as they come. `binds` from its first word on until the stream is of no use any more."""

    def __init__(self, owner: Sheaves, host: Address, name: bytes) -> None:
        self.name = name
        self.binds = False
        self._owner = owner
        self._host = host
        self._waiting: dict[Digest, tuple[Attempt, float]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._stream: Stream | None = None
        self._over = False
        self._loop = asyncio.get_running_loop()

    def expect(self, digest: Digest, attempt: "Attempt") -> None:
        """A bare receipt of this attempt came."""
        if self._over:
            attempt.unbound(digest)
            return
        self._waiting[digest] = attempt, self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(LATE_SECONDS, self._look)

    async def run(self, link: Link, domain: Domain) -> None:
        try:
            self._stream = await link.open(SHEAVES)
            messages: MessageStream[Binding | BoundReceipts] = MessageStream(self._stream, _decoder)
            messages.send(WantSheaves(self.name))
            while not self._over and (said := await messages.recv()) is not None:
                if isinstance(said, Binding):
                    self.binds = True
                else:
                    self._bound(said, domain)
        except BadSignature as error:
            self._owner.lied(self._host, error.message)
        except LadingError as error:  # the link, or a host that does not know the question
            log.debug("host %s binds no receipts: %s", short(self._host), error)
        finally:
            self._end()

    def _bound(self, said: BoundReceipts, domain: Domain) -> None:
        digests = [Digest(digest) for digest in said.digests]
        if not any(digest in self._waiting for digest in digests):
            return  # of receipts that a later one made needless
        signatures = spread(digests, Signature(said.signature))
        if signer(digests[0], signatures[0], domain) != self._host:  # of one it is that of all
            raise BadSignature("The sheaf is not signed by the host.")
        for digest, signature in zip(digests, signatures, strict=True):
            if (waiting := self._waiting.pop(digest, None)) is not None:
                waiting[0].bound(digest, signature)

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        _, since = next(iter(self._waiting.values()))
        left = since + LATE_SECONDS - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._owner.lied(self._host, f"nothing came for {LATE_SECONDS:g} s")
        self._end()

    def _end(self) -> None:
        """What is not signed by now will not be."""
        self.binds, self._over = False, True
        if self._stream is not None:
            self._stream.reset()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        for digest, (attempt, _) in waiting.items():
            attempt.unbound(digest)
