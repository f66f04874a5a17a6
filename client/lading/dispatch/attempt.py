"""One attempt's stream: messages out, events in, and the account of what this attempt delivered.

A cut stream, garbage and silence all become LinkLost, so that the job machine sees one closed set of events.
"""

import asyncio
import contextlib

import msgspec

from lading.dispatch.purse import ChannelKey
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.eip712 import Domain
from lading_protocol.errors import LadingError
from lading_protocol.ids import Wei
from lading_protocol.job import Effect, Event, Heard, JobState, LinkLost, apply, joined, owed
from lading_protocol.messages import Cancel, Chunk, Done, Open, Pay, ToPayer
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import SignedReceipt

_decoder = msgspec.msgpack.Decoder(ToPayer)


class StreamCut(LinkLost, frozen=True):
    """The host went away or fell silent: a fault of its connection, not a refusal."""


class Attempt:
    """`owed` is what the host has delivered in wei, `promised` what vouchers already cover of it."""

    def __init__(self, stream: Stream, opening: Open, offer: KnownOffer, key: ChannelKey, first: int) -> None:
        self.offer = offer
        self.key = key
        self.first = first
        self.number = opening.attempt
        self.count = 0
        self.owed = Wei(0)
        self.promised = Wei(0)
        self.receipt: SignedReceipt | None = None
        self.marks: tuple[bytes, ...] = ()
        self.last: Event | None = None
        self.settled = False
        self._opening = opening
        self._stream = stream
        self._messages: MessageStream[Heard] = MessageStream(stream, _decoder, joined)

    def send_open(self) -> None:
        self._send(self._opening)

    def send_voucher(self, voucher: bytes) -> None:
        self._send(Pay(voucher))

    def send_cancel(self) -> None:
        self._send(Cancel())

    async def next(self, patience: float) -> Event:
        """The host's next message, or StreamCut after `patience` seconds of silence."""
        try:
            if self._messages.waiting:
                message = await self._messages.recv()
                return StreamCut("the host closed the stream") if message is None else message
            async with asyncio.timeout(patience):
                message = await self._messages.recv()
        except TimeoutError:
            return StreamCut(f"nothing came for {patience:g} s")
        except LadingError as error:
            return StreamCut(error.message)
        return StreamCut("the host closed the stream") if message is None else message

    def apply(self, state: JobState, event: Event, domain: Domain, now: float) -> tuple[JobState, list[Effect]]:
        self.last = event
        state, effects = apply(state, event, domain, now)
        current = state.attempt or state.last
        if current is not None and current.number == self.number:
            self.count = current.count
            self.owed = max(self.owed, owed(state))
            if current.receipt is not None:
                self.receipt, self.marks = current.receipt, current.marks
        return state, effects

    def should_pay(self, event: Event) -> bool:
        return isinstance(event, Chunk | Done)

    async def close(self) -> None:
        with contextlib.suppress(NetError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._stream.close()

    def _send(self, message: msgspec.Struct) -> None:
        # A host that is gone cannot be told; the voucher is in the purse and waits for it there.
        with contextlib.suppress(NetError):
            self._messages.send(message)
