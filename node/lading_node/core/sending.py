"""A batch on its way to the chain, from the moment it is signed until its block is too deep to be taken back. Pure.

Until its fate is known its rows go out in no other transaction. It is written down before it is broadcast, so that a
restart finds out what became of it instead of guessing.
"""

from collections.abc import Iterable

import msgspec

from lading_contracts.port import Signed, TxReceipt
from lading_node.core.channel import ChannelId
from lading_protocol.ids import Address, Digest, TermsId, short

# A block that has stood for so long is not taken back by any chain that we know (Ethereum's finality takes 13 minutes).
FINAL_SECONDS = 900.0
# For so long a server may still show the state before our transaction: its rows are not sent again meanwhile.
LAG_SECONDS = 60.0

Row = tuple[Address, int]
"""(signer, cumulative)."""


class Sending(msgspec.Struct, frozen=True):
    """`signed` are rivals for one nonce: at most one is ever included. `number` tells the kept sendings apart.

    `since` is when it was signed, `included` when a block was seen that has it (0: its fate is open); both Unix
    seconds. `block` and `block_hash` are the last block that was seen to have it.
    """

    number: int
    terms: TermsId
    epoch: int
    locks: tuple[Row, ...]
    vouchers: tuple[Row, ...]
    since: float
    signed: tuple[Signed, ...] = ()
    included: float = 0.0
    block: int = 0
    block_hash: Digest = Digest(b"")

    @property
    def open(self) -> bool:
        return not self.included

    @property
    def channels(self) -> list[ChannelId]:
        signers = dict.fromkeys(signer for signer, _ in (*self.locks, *self.vouchers))
        return [ChannelId(signer, self.terms, self.epoch) for signer in signers]


def sign(sending: Sending, signed: Signed) -> Sending:
    """One more was signed. Another nonce means that the endpoint took none of the earlier ones."""
    rivals = sending.signed if sending.signed and sending.signed[0].nonce == signed.nonce else ()
    return msgspec.structs.replace(sending, signed=(*rivals, signed))


def include(sending: Sending, receipt: TxReceipt, now: float) -> Sending:
    return msgspec.structs.replace(sending, included=now, block=receipt.block, block_hash=receipt.block_hash)


def reopen(sending: Sending) -> Sending:
    """Its block is no longer part of the chain."""
    return msgspec.structs.replace(sending, included=0.0)


def final(sending: Sending, now: float) -> bool:
    return not sending.open and now - sending.included >= FINAL_SECONDS


def landed(sendings: Iterable[Sending], now: float) -> tuple[dict[ChannelId, int], dict[ChannelId, int]]:
    """(locks, vouchers) of each channel that went in a moment ago, whatever a lagging server says of them."""
    locks: dict[ChannelId, int] = {}
    vouchers: dict[ChannelId, int] = {}
    for sending in sendings:
        if not sending.open and now - sending.included < LAG_SECONDS:
            for kept, rows in ((locks, sending.locks), (vouchers, sending.vouchers)):
                for signer, cumulative in rows:
                    id = ChannelId(signer, sending.terms, sending.epoch)
                    kept[id] = max(kept.get(id, 0), cumulative)
    return locks, vouchers


def words(sending: Sending, now: float) -> str:
    """For the operator: what is known of it, and what happens next."""
    tx = sending.signed[-1]
    what = f"The transaction {short(tx.hash)} (nonce {tx.nonce}, {len(sending.locks) + len(sending.vouchers)} rows)"
    if sending.open:
        lost = "its block was taken back by the chain and " if sending.block else ""
        return (
            f"{what} was signed {now - sending.since:.0f} s ago, {lost}no block has it yet: "
            "it is looked for and offered again, and nothing else is sent before its fate is known."
        )
    left = max(0.0, sending.included + FINAL_SECONDS - now)
    return f"{what} is in block {sending.block}, which is watched for another {left:.0f} s."
