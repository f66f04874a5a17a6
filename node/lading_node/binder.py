"""The host's signature under its receipts, many at once for a payer that has asked for it (lading_protocol.sheaves).

Owns the streams of payers that wait for signatures, and how long a receipt waits for others. What a receipt says, and
when it is sent, is not its business: a payer has it already, bare.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec

from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.eip712 import Domain, Signed
from lading_protocol.ids import Address, Digest
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Binding, BoundReceipts, WantSheaves
from lading_protocol.receipts import Receipt, SignedReceipt
from lading_protocol.sheaves import ALONE, bind

# A receipt that follows another within this time waits as long for more. Only the account of its job waits with it. A
# host that is killed leaves so much unsigned.
GATHER_SECONDS = 0.05
MOST_BOUND = 64
MOST_STREAMS = 64  # of one peer: a coordinator has one for each of its processes
OPEN_SECONDS = 10.0
_want = msgspec.msgpack.Decoder(WantSheaves)
Keep = Callable[[SignedReceipt], None]


class Binder:
    """`domain` is the audit court's."""

    def __init__(self, key: PrivateKey, domain: Domain) -> None:
        self._key = key
        self._domain = domain
        self._sheaves: dict[tuple[Address, bytes], _Sheaf] = {}

    async def serve(self, stream: Stream) -> None:
        """The handler of the protocol of sheaves, for as long as the payer listens."""
        messages: MessageStream[WantSheaves] = MessageStream(stream, _want)
        async with asyncio.timeout(OPEN_SECONDS):
            wanted = await messages.recv()
        peer = Address(stream.peer)
        if wanted is None or (peer, wanted.name) in self._sheaves or self._streams(peer) >= MOST_STREAMS:
            stream.reset()
            return
        sheaf = self._sheaves[peer, wanted.name] = _Sheaf(self._key, self._domain, messages)
        try:
            messages.send(Binding())
            await messages.recv()  # it says nothing more
        finally:
            del self._sheaves[peer, wanted.name]
            sheaf.bind()

    def put(self, peer: Address, name: bytes, receipt: Receipt, keep: Keep) -> bool:
        """Whether it is signed later: then `keep` has the receipt once it is, and so has the payer. One that comes
        alone, or whose payer does not listen, is the caller's to sign."""
        sheaf = self._sheaves.get((peer, name))
        return sheaf is not None and sheaf.put(receipt, keep)

    def flush(self) -> None:
        """Sign everything now."""
        for sheaf in self._sheaves.values():
            sheaf.bind()

    def _streams(self, peer: Address) -> int:
        return sum(one == peer for one, _ in self._sheaves)


class _Sheaf:
    """What one payer's stream is to bring next."""

    def __init__(self, key: PrivateKey, domain: Domain, messages: MessageStream[WantSheaves]) -> None:
        self._key = key
        self._domain = domain
        self._messages = messages
        self._waiting: list[tuple[Receipt, Keep]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._last = -math.inf

    def put(self, receipt: Receipt, keep: Keep) -> bool:
        loop = asyncio.get_running_loop()
        since, self._last = self._last, loop.time()
        if self._timer is None and self._last - since > GATHER_SECONDS:
            return False
        self._waiting.append((receipt, keep))
        if len(self._waiting) >= MOST_BOUND:
            self.bind()
        elif self._timer is None:
            self._timer = loop.call_later(GATHER_SECONDS, self.bind)
        return True

    def bind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        digests: list[Digest] = [receipt.digest(self._domain) for receipt, _ in waiting]
        signatures = bind(digests, self._domain, self._key)
        try:
            self._messages.send(BoundReceipts(signatures[0][:ALONE], tuple(digests)))
        except NetError:
            self._messages.reset()  # it reads nothing, or is gone: what it misses is its own loss
        for (receipt, keep), signature in zip(waiting, signatures, strict=True):
            keep(Signed(receipt, signature))
