"""Deposits, channels of cumulative vouchers, and split pools, as typed verbs. Amounts are wei, times Unix seconds.

Builds batches; signs nothing but transactions: vouchers, locks and consents come signed from lading_protocol.
"""

from collections.abc import Iterable, Sequence

import msgspec

from lading_contracts import abi
from lading_contracts.coin import ReceiveWithAuthorization, vrs
from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_contracts.registry import Party, rows
from lading_protocol.ids import Address, Digest, Signature, TermsId, Wei
from lading_protocol.keys import keccak256
from lading_protocol.receipts import SignedGrant, pack_row


class Account(msgspec.Struct, frozen=True):
    """A payer's deposit. Hosts count on `free - exit_amount` only: the rest may leave at any moment after `exit_at`."""

    free: Wei
    exit_amount: Wei
    exit_at: int


class Session(msgspec.Struct, frozen=True):
    """A key that signs for `payer` until `expiry`, exclusive. `locked` is what it has locked and not got back."""

    payer: Address
    cap: Wei
    locked: Wei
    expiry: int


class Channel(msgspec.Struct, frozen=True):
    """One signer's money for one host, terms and epoch. `closes_at` is 0 until a close is started."""

    locked: Wei
    redeemed: Wei
    closes_at: int
    via_session: bool
    dead: bool


class ChannelKey(msgspec.Struct, frozen=True):
    """What names a channel. `signer` is the payer's own key or a session key."""

    signer: Address
    host: Address
    terms: TermsId
    epoch: int = 0

    @property
    def id(self) -> Digest:
        types = ("address", "address", "bytes32", "uint32")
        return keccak256(abi.encode(types, (self.signer, self.host, self.terms, self.epoch)))


class Batch(msgspec.Struct, frozen=True):
    """Whose rows these are: a batch has one host, one table and one epoch."""

    host: Address
    terms: TermsId
    epoch: int = 0


Row = tuple[int, Signature]
"""(cumulative, the 65-byte signature of the Voucher or Lock)."""


def pack_rows(signed: Iterable[Row]) -> bytes:
    """76 bytes a row. For gas, a batch of 50 to 200 is near the floor; keep below about 1,500 a transaction."""
    return b"".join(pack_row(cumulative, signature) for cumulative, signature in signed)


class Settlement(Contract):
    NAME = "Settlement"

    # --- the payer's side ---

    async def deposit(self, signer: Signer, amount: int) -> TxReceipt:
        """Needs an allowance: see Coin.allow."""
        return await self._write(signer, "deposit", amount)

    async def deposit_for(self, signer: Signer, payer: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "depositFor", payer, amount)

    async def deposit_with_permit(self, signer: Signer, amount: int, deadline: int, permit: Signature) -> TxReceipt:
        """`permit` is the signer's signature of a coin.Permit for this contract and amount: no allowance is needed."""
        return await self._write(signer, "depositWithPermit", amount, deadline, *vrs(permit))

    async def deposit_with_authorization(
        self, signer: Signer, authorization: ReceiveWithAuthorization, signature: Signature
    ) -> TxReceipt:
        """Into the account of whoever signed the authorization to this contract; by anyone, who pays the gas."""
        one = authorization
        given = one.from_, one.value, one.valid_after, one.valid_before, one.nonce
        return await self._write(signer, "depositWithAuthorization", *given, *vrs(signature))

    async def authorize(self, signer: Signer, key: Address, cap: int, expiry: int, consent: bytes = b"") -> TxReceipt:
        """`consent` is the key's signature of SessionConsent(payer); empty to change cap and expiry later."""
        return await self._write(signer, "authorize", key, cap, expiry, consent)

    async def authorize_for(self, signer: Signer, grant: SignedGrant, consent: bytes = b"") -> TxReceipt:
        """As `authorize`, by the payer's signature instead of its transaction; by anyone. See `grant_nonce`."""
        one = grant.value
        given = one.payer, one.key, one.cap, one.expiry, consent, grant.signature
        return await self._write(signer, "authorizeFor", *given)

    async def revoke(self, signer: Signer, key: Address) -> TxReceipt:
        return await self._write(signer, "revoke", key)

    async def request_exit(self, signer: Signer, amount: int) -> TxReceipt:
        return await self._write(signer, "requestExit", amount)

    async def finish_exit(self, signer: Signer) -> TxReceipt:
        return await self._write(signer, "finishExit")

    async def start_close(self, signer: Signer, channel: ChannelKey) -> TxReceipt:
        """By the payer only."""
        return await self._write(signer, "startClose", *_channel(channel))

    async def finish_close(self, signer: Signer, channel: ChannelKey) -> TxReceipt:
        return await self._write(signer, "finishClose", *_channel(channel))

    # --- the host's side; anyone may send ---

    async def lock(self, signer: Signer, batch: Batch, locks: Iterable[Row]) -> TxReceipt:
        return await self._write(signer, "lock", batch.host, batch.terms, batch.epoch, pack_rows(locks))

    async def redeem(self, signer: Signer, batch: Batch, vouchers: Iterable[Row]) -> TxReceipt:
        return await self._write(signer, "redeem", batch.host, batch.terms, batch.epoch, pack_rows(vouchers))

    async def lock_and_redeem(
        self, signer: Signer, batch: Batch, locks: Iterable[Row], vouchers: Iterable[Row]
    ) -> TxReceipt:
        packed = pack_rows(locks), pack_rows(vouchers)
        return await self._write(signer, "lockAndRedeem", batch.host, batch.terms, batch.epoch, *packed)

    async def set_payout(self, signer: Signer, host: Address, payout: Address) -> TxReceipt:
        return await self._write(signer, "setPayout", host, payout)

    async def withdraw(self, signer: Signer, host: Address) -> TxReceipt:
        return await self._write(signer, "withdraw", host)

    # --- the parties' side; anyone may send ---

    async def claim(self, signer: Signer, agent: bytes, parties: Sequence[Party], k: int) -> TxReceipt:
        """Pays party `k` of the table what it is due."""
        return await self._write(signer, "claim", agent, rows(parties), k)

    async def claim_many(
        self, signer: Signer, payee: Address, shares: Iterable[tuple[bytes, Sequence[Party], int]]
    ) -> TxReceipt:
        """Several (agent, parties, k) of one payee with one transfer."""
        table = [(agent, rows(parties), k) for agent, parties, k in shares]
        return await self._write(signer, "claimMany", payee, table)

    # --- views ---

    async def coin(self) -> Address:
        return Address((await self._view("coin"))[0])

    async def account(self, payer: Address) -> Account:
        return Account(*await self._view("accounts", payer))

    async def session(self, key: Address) -> Session | None:
        found = Session(*await self._view("sessions", key))
        return found if any(found.payer) else None

    async def channel(self, channel: ChannelKey) -> Channel:
        return Channel(*await self._view("channels", channel.id))

    async def payer_of(self, signer: Address) -> Address:
        return Address((await self._view("payerOf", signer))[0])

    async def grant_nonce(self, payer: Address) -> int:
        """What the payer's next SessionGrant must name."""
        return int((await self._view("grantNonce", payer))[0])

    async def host_balance(self, host: Address) -> Wei:
        return Wei((await self._view("hostBalance", host))[0])

    async def payout_of(self, host: Address) -> Address:
        return Address((await self._view("payoutOf", host))[0])

    async def earned(self, terms: bytes) -> Wei:
        """What the parties of the table have earned together, ever."""
        return Wei((await self._view("earned", terms))[0])

    async def gross(self, terms: bytes) -> Wei:
        """Everything ever redeemed under the table, host's and parties' shares together."""
        return Wei((await self._view("gross", terms))[0])

    async def claimed(self, terms: bytes, k: int) -> Wei:
        return Wei((await self._view("claimed", terms, k))[0])

    async def claimable(self, agent: bytes, parties: Sequence[Party], k: int) -> Wei:
        return Wei((await self._view("claimable", agent, rows(parties), k))[0])

    async def exit_delay(self) -> int:
        return int((await self._view("exitDelay"))[0])

    async def close_delay(self) -> int:
        return int((await self._view("closeDelay"))[0])


def _channel(key: ChannelKey) -> tuple[Address, Address, TermsId, int]:
    return key.signer, key.host, key.terms, key.epoch
