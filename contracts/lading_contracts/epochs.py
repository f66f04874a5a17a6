"""The calendar of the auctions: what is auctioned in one epoch is in force in the next. Moments are Unix seconds."""

import msgspec

from lading_contracts.contract import Contract


class Calendar(msgspec.Struct, frozen=True):
    """Fixed at deployment: the first second of epoch 0, and the seconds of an epoch. Computes as Epochs.sol does."""

    genesis: int
    length: int

    def epoch_at(self, moment: int) -> int:
        return max(0, moment - self.genesis) // self.length

    def start_of(self, epoch: int) -> int:
        """Bids on `epoch` must be opened before this second."""
        return self.genesis + epoch * self.length

    def commit_starts(self, epoch: int) -> int:
        """Bids on `epoch` are sealed from this second on. Nothing is auctioned for epoch 0."""
        return self.start_of(epoch - 1)

    def commit_ends(self, epoch: int) -> int:
        """Bids on `epoch` are sealed before this second, and opened from it on."""
        return self.start_of(epoch) - self.length // 3


class Epochs(Contract):
    """Part of both auctions."""

    async def calendar(self) -> Calendar:
        return Calendar(await self.genesis(), await self.epoch_length())

    async def genesis(self) -> int:
        """The first second of epoch 0."""
        return int((await self._view("genesis"))[0])

    async def epoch_length(self) -> int:
        """Seconds."""
        return int((await self._view("epochLength"))[0])

    async def current_epoch(self) -> int:
        return int((await self._view("currentEpoch"))[0])

    async def start_of(self, epoch: int) -> int:
        return int((await self._view("startOf", epoch))[0])

    async def commit_ends(self, epoch: int) -> int:
        return int((await self._view("commitEnds", epoch))[0])
