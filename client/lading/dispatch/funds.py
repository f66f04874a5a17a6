"""The money of running jobs: cover before work, payment as work arrives, and one last word on each attempt.

The purse signs what it is told to; this module decides how much, and that nothing is signed for the same work twice.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lading.dispatch.events import Ask, Payer, Settling
from lading.dispatch.purse import ChannelKey, Purse
from lading.dispatch.tab import Tab
from lading.errors import OutOfFunds
from lading_contracts.deployment import Deployment
from lading_protocol.ids import Address, Wei
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import attempt_amount, format_amount, worst_case

if TYPE_CHECKING:
    from lading.dispatch.attempt import Attempt

_SETTLED: Final = Settling.SETTLED
_LATE: Final = Settling.LATE


class Cover:
    """What an attempt may cost at most (`need`, wei) on its channel, and the packed lock behind it."""

    __slots__ = ("key", "lock", "need")

    def __init__(self, key: ChannelKey, need: int, lock: bytes) -> None:
        self.key: Final = key
        self.need: Final = need
        self.lock: Final = lock


class Funds:
    """`reserved` is what running attempts may still cost, by channel: vouchers for all must stay within the locks."""

    def __init__(self, purse: Purse, network: Deployment, closed: Callable[[list["Attempt"]], None]) -> None:
        self._purse = purse
        self._network = network
        self.tab = Tab(purse, closed)
        self.reserved: dict[ChannelKey, int] = {}

    def cover(self, payer: Payer, ask: Ask, offer: KnownOffer, done: int) -> Cover:
        """Enough for the worst case of a job of which `done` tokens are there, before any work.

        Raises OutOfFunds, PurseError.
        """
        if self.tab.trouble is not None:
            raise self.tab.trouble
        key, need, target, room = self._asked(payer, ask, offer, done)
        held = self._purse.channel(key)
        if target <= held.locked:
            return self._reserve(key, need, held.lock)
        if target > room:
            missing = Wei(target - room)
            shown = format_amount(missing, self._network.decimals, 6)
            raise OutOfFunds(missing, f"{shown} {self._network.symbol}")
        lock = self._purse.lock(payer.key, key, min(room, target + held.cumulative + 3 * need))
        return self._reserve(key, need, lock)

    def covers(self, payer: Payer, ask: Ask, offer: KnownOffer, done: int) -> bool:
        """Whether `cover` would find enough. Signs nothing."""
        key, _, target, room = self._asked(payer, ask, offer, done)
        return target <= max(room, self._purse.channel(key).locked)

    def hosts(self, payer: Payer) -> list[Address]:
        """Those for whom this payer has locked more than it has promised."""
        held = self._purse.channels(payer.key.address)
        return list(dict.fromkeys(key.host for key, channel in held if channel.locked > channel.cumulative))

    def _asked(self, payer: Payer, ask: Ask, offer: KnownOffer, done: int) -> tuple[ChannelKey, int, int, int]:
        """The channel, what the rest of the job may cost, what its lock must come to, and what it may come to (wei)."""
        purse, signer = self._purse, payer.key.address
        key = purse.current(signer, offer.host, offer.terms)
        prompt, output = worst_case(ask.request, offer.detail.context)
        need = attempt_amount(offer.price, prompt, done, max(output - done, 0))
        unlocked = payer.limit - purse.locked(signer)  # first: this may sign for what is on the tab
        held = purse.channel(key)
        room = held.locked + unlocked
        return key, need, held.cumulative + self.pending(key) + need, room

    def pending(self, key: ChannelKey) -> int:
        """What may still be added to the channel's last voucher for work that was begun (wei)."""
        return self.reserved.get(key, 0) + self.tab.due(key)

    def _reserve(self, key: ChannelKey, need: int, lock: bytes) -> Cover:
        self.reserved[key] = self.reserved.get(key, 0) + need
        return Cover(key, need, lock)

    def release(self, cover: Cover) -> None:
        """The attempt is over: what it really cost is in the channel's vouchers now. Once for each cover."""
        left = self.reserved.pop(cover.key, 0) - cover.need  # of several that cost nothing the first took the entry
        if left:
            self.reserved[cover.key] = left

    def pay(self, payer: Payer, attempt: "Attempt") -> None:
        """Promise what is owed and not yet promised: with the channel's next voucher, or at once where the host is
        about to wait for it."""
        more = attempt.owed - attempt.promised
        if more <= 0 or attempt.over:
            return
        attempt.promised = attempt.owed
        attempt.unpaid += more
        self.tab.owe(payer.key, attempt, more)
        if 2 * attempt.unpaid >= attempt.ahead:
            # In a moment: what the voucher is for has left for the consumer by then, though this program be killed.
            asyncio.get_running_loop().call_soon(self.tab.sign, attempt.cover.key)

    def settle(self, payer: Payer, attempt: "Attempt", *, late: bool) -> None:
        """The last word on an attempt. Whatever the host says or asks for later, no higher voucher is signed for it."""
        if attempt.over:
            return
        more = attempt.owed - attempt.promised
        if more > 0:
            attempt.promised = attempt.owed
            self.tab.owe(payer.key, attempt, more)
        attempt.settling = _LATE if late else _SETTLED
        self.release(attempt.cover)
