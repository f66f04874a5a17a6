"""Puts the node's own word on record: one Merkle root over the receipts of each period, on the chain.

A receipt is the host's word already, since it is signed. The root adds that nothing was signed afterwards, and lets
anybody who holds a receipt prove that it is one of those. What is not on record yet waits for the next period.
"""

import asyncio
import logging

import msgspec

from lading_contracts.deployment import Contracts
from lading_node.store import Ledger
from lading_protocol.errors import LadingError
from lading_protocol.ids import Digest, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.transcript import merkle_root, sha256

log = logging.getLogger(__name__)

# As many receipts as one root stands for at most; the contract counts leaves in 32 bits, a proof has a hash a level.
LEAVES = 1 << 16
_NOTE = "anchored"


class Anchored(msgspec.Struct, frozen=True):
    """The last root: over `count` receipts, of attempts that ended up to `until` (Unix seconds)."""

    root: Digest
    count: int
    until: float


class Anchors:
    """Every `period` seconds; 0 is never."""

    def __init__(self, ledger: Ledger, contracts: Contracts, key: PrivateKey, period: float) -> None:
        self._ledger = ledger
        self._contracts = contracts
        self._key = key
        self._period = period
        self.last: Anchored | None = None

    async def run(self) -> None:
        """Until cancelled. An outage only makes it wait: the next root takes in what was left."""
        if self._period <= 0:
            return
        while True:
            await asyncio.sleep(self._period)
            try:
                while await self.step():
                    pass
            except LadingError as error:
                log.warning("the receipts of this period are not anchored yet: %s", error)

    async def step(self) -> bool:
        """Anchor what has ended since the last root; whether there was anything. Raises ChainError, LedgerError.

        A crash after the transaction and before its note repeats it: the chain keeps the first of equal roots.
        """
        last = await self._recall()
        ended = await self._ledger.ended_after(last.until if last else 0.0, LEAVES)
        if not ended:
            return False
        leaves = [sha256(receipt) for _, receipt in ended]
        root = merkle_root(leaves)
        court = self._contracts.court
        if await court.anchor_of(self._key.address, root) is None:
            await court.anchor(self._key, root, len(leaves))
        self.last = Anchored(root, len(leaves), ended[-1][0])
        await self._ledger.put_note(_NOTE, msgspec.msgpack.encode(self.last))
        log.info("anchored %d receipts under %s", len(leaves), to_hex(root))
        return True

    async def _recall(self) -> Anchored | None:
        if self.last is None and (note := await self._ledger.note(_NOTE)) is not None:
            self.last = msgspec.msgpack.decode(note, type=Anchored)
        return self.last
