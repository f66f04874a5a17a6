"""What coordinators pay this node for its findings: their vouchers, checked like a job's, and who owes for how many.

Owns the account of unpaid findings by asker, in memory. How vouchers become money is settle's business.
"""

import logging
from collections.abc import Sequence

from lading_node.agents import Agent
from lading_node.channels import Channels
from lading_node.core.admission import Account
from lading_node.core.channel import Channel, ChannelId, cover, promise_lock, read_lock, read_voucher, receive
from lading_node.errors import NodeError
from lading_node.jobs import Desk
from lading_node.ports import Doors
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address, TermsId, Wei, short
from lading_protocol.messages import Fee
from lading_protocol.receipts import SignedLock, Voucher

log = logging.getLogger(__name__)
# Askers are anybody: so many are remembered, the newest.
MOST_ASKERS = 4096


class Unpaid(NodeError):
    """This node has found enough for this asker without being paid."""

    code = "unpaid"
    hint = "Pay the fees of its findings, or ask another auditor."


class BadFee(NodeError):
    """A fee's papers are not money for this node."""

    code = "bad_fee"


class Takings:
    """`credit` is how many findings in a row an asker may leave unpaid; 0: any number."""

    def __init__(self, doors: Doors, channels: Channels, desk: Desk, agents: Sequence[Agent], credit: int) -> None:
        self._doors = doors
        self._channels = channels
        self._desk = desk
        self._agents = agents
        self._credit = credit
        self._owed: dict[Address, int] = {}
        self.taken = 0

    def admit(self, asker: Address) -> None:
        """Whether a finding is made for this asker. Raises Unpaid."""
        if self._credit and self._owed.get(asker, 0) >= self._credit:
            raise Unpaid(f"{self._credit} findings for this asker were not paid.")

    def found(self, asker: Address) -> None:
        self._owed[asker] = self._owed.pop(asker, 0) + 1
        if len(self._owed) > MOST_ASKERS:
            del self._owed[next(iter(self._owed))]

    async def take(self, fee: Fee, asker: Address) -> Wei:
        """Keep a fee's voucher, durably; how much came. Raises BadFee, BadMessage, BadSignature, LedgerError."""
        voucher = unpack(Voucher, fee.voucher)
        id = ChannelId(asker, TermsId(voucher.value.terms), voucher.value.epoch)
        if not any(agent.serving.terms == id.terms for agent in self._agents):
            raise BadFee("The fee is under terms that this node does not serve.")
        domain, me = self._doors.contracts.deployment.settlement_domain, self._doors.key.address
        voucher = read_voucher(fee.voucher, id, me, domain)
        lock = read_lock(fee.lock, id, me, domain) if fee.lock else None
        channel, lock = await self._backed(id, lock)
        came = Wei(voucher.value.cumulative - channel.signed)
        if came <= 0 or voucher.value.cumulative > cover(channel) or channel.closing:
            raise BadFee("The fee's voucher is old, or nothing stands behind it.")
        if lock is not None:
            self._channels.put(channel)
            await self._desk.keep_lock(id, lock, asker)
        await self._desk.keep_voucher(id, voucher, asker)
        self._channels.put(receive(self._channels.get(id), came))
        self._owed.pop(asker, None)
        self.taken += came
        log.info("took a fee of %d wei from %s for a finding", came, short(asker))
        return came

    async def _backed(self, id: ChannelId, lock: SignedLock | None) -> tuple[Channel, SignedLock | None]:
        """The channel with the lock counted in, where the payer's deposit covers it; else without."""
        found = await self._channels.look_up(id, lock.value.cumulative if lock is not None else 0)
        channel = found.channel
        if lock is None or lock.value.cumulative <= cover(channel):
            return channel, None
        if found.account is None or not _covers(found.account, lock.value.cumulative - channel.locked):
            raise BadFee(found.error or "The payer's deposit does not cover the fee's lock.")
        return promise_lock(channel, Wei(lock.value.cumulative)), lock


def _covers(account: Account, more: int) -> bool:
    return more <= min(account.free, account.room)
