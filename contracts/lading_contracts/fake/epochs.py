"""The calendar of the auctions, and sealed bids, in memory."""

import msgspec

from lading_contracts.fake.payments import PaymentsModel
from lading_contracts.fake.world import World, require
from lading_protocol.ids import Address

_SHORTEST, _LONGEST = 3, 365 * 86_400
_TIME_BITS = 40


class Seal(msgspec.Struct, frozen=True):
    """A sealed bid. `order` counts from 1; `kept` is what the contract keeps of it, empty once it is opened."""

    order: int = 0
    kept: bytes = b""

    def holds(self, seal: bytes) -> bool:
        return self.kept == _kept(seal) != b""


def sealed(seal: bytes, order: int) -> Seal:
    """Refuses a seal of which nothing would be left."""
    require(any(_kept(seal)), "BadReveal")
    return Seal(order, _kept(seal))


def _kept(seal: bytes) -> bytes:
    return seal[:28]


class EpochsModel(PaymentsModel):
    """Base of the auctions' models."""

    def __init__(self, world: World, address: Address, coin: Address, genesis: int, length: int) -> None:
        super().__init__(world, address, coin)
        require(_SHORTEST <= length <= _LONGEST, "BadEpochs")
        self._genesis = genesis
        self._length = length

    def genesis(self, _sender: Address) -> int:
        return self._genesis

    def epoch_length(self, _sender: Address) -> int:
        return self._length

    def current_epoch(self, _sender: Address) -> int:
        return max(0, self.world.now - self._genesis) // self._length % 2**32

    def start_of(self, _sender: Address, epoch: int) -> int:
        moment = self._genesis + epoch * self._length
        require(moment < 1 << _TIME_BITS, "SafeCastOverflowedUintDowncast", _TIME_BITS, moment)
        return moment

    def commit_ends(self, sender: Address, epoch: int) -> int:
        return self.start_of(sender, epoch) - self._length // 3

    def _require_committing(self, epoch: int) -> None:
        """Bids on `epoch` are sealed during the first two thirds of the epoch before it."""
        opens = self.start_of(self.address, epoch - 1) if epoch else 0
        require(epoch != 0 and self.world.now >= opens, "TooEarly", opens)
        ends = self.commit_ends(self.address, epoch)
        require(self.world.now < ends, "TooLate", ends)

    def _require_revealing(self, epoch: int) -> None:
        ends = self.commit_ends(self.address, epoch)
        require(self.world.now >= ends, "TooEarly", ends)
        start = self.start_of(self.address, epoch)
        require(self.world.now < start, "TooLate", start)

    def _require_over(self, epoch: int) -> None:
        start = self.start_of(self.address, epoch)
        require(self.world.now >= start, "TooEarly", start)
