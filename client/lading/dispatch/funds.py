"""The money of running jobs: cover before work, a voucher as work arrives, and one last word on each attempt.

The purse signs what it is told to; this module decides how much, and that nothing is signed for the same work twice.
"""

import logging
from typing import TYPE_CHECKING

import msgspec

from lading.dispatch.events import Ask, Payer, Settling
from lading.dispatch.purse import ChannelKey, Purse
from lading.errors import OutOfFunds, PurseError
from lading_contracts.deployment import Deployment
from lading_protocol.ids import Address, Wei, short
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import attempt_amount, format_amount, worst_case

if TYPE_CHECKING:
    from lading.dispatch.attempt import Attempt

log = logging.getLogger(__name__)


class Cover(msgspec.Struct, frozen=True):
    """What an attempt may cost at most (`need`, wei) on its channel, and the packed lock behind it."""

    key: ChannelKey
    need: int
    lock: bytes


class Funds:
    """`reserved` is what running attempts may still cost, by channel: vouchers for all must stay within the locks."""

    def __init__(self, purse: Purse, network: Deployment) -> None:
        self._purse = purse
        self._network = network
        self.reserved: dict[ChannelKey, int] = {}

    def cover(self, payer: Payer, ask: Ask, offer: KnownOffer, done: int) -> Cover:
        """Enough for the worst case of a job of which `done` tokens are there, before any work.

        Raises OutOfFunds, PurseError.
        """
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
        key = ChannelKey(signer, offer.host, offer.terms, purse.epoch(signer, offer.host, offer.terms))
        held = purse.channel(key)
        prompt, output = worst_case(ask.request, offer.detail.context)
        need = attempt_amount(offer.price, prompt, done, max(output - done, 0))
        room = held.locked + payer.limit - purse.locked(signer)
        return key, need, held.cumulative + self.reserved.get(key, 0) + need, room

    def _reserve(self, key: ChannelKey, need: int, lock: bytes) -> Cover:
        self.reserved[key] = self.reserved.get(key, 0) + need
        return Cover(key, need, lock)

    def release(self, cover: Cover) -> None:
        """The attempt is over: what it really cost is in the channel's vouchers now. Once for each cover."""
        left = self.reserved.pop(cover.key) - cover.need
        if left:
            self.reserved[cover.key] = left

    def pay(self, payer: Payer, attempt: "Attempt") -> None:
        """Promise what is owed and not yet promised; stored first, then sent. Raises PurseError."""
        more = attempt.owed - attempt.promised
        if more > 0 and attempt.settling is Settling.OPEN:
            voucher = self._purse.pay(payer.key, attempt.cover.key, more)
            attempt.promised = Wei(attempt.promised + more)
            attempt.send_voucher(voucher)

    def settle(self, payer: Payer, attempt: "Attempt", *, late: bool) -> None:
        """The last word on an attempt. Whatever the host says or asks for later, no higher voucher is signed for it.

        A purse that fails now has promised too little, never too much: signing again later could promise twice.
        """
        if attempt.settling is not Settling.OPEN:
            return
        try:
            self.pay(payer, attempt)
        except PurseError as error:
            attempt.settling = Settling.UNSIGNED
            due = attempt.owed - attempt.promised
            log.error("host %s is owed %d wei that cannot be signed: %s", short(attempt.offer.host), due, error)
        else:
            attempt.settling = Settling.LATE if late else Settling.SETTLED
        finally:
            self.release(attempt.cover)
