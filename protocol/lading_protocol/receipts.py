"""The signed papers of the network: vouchers, locks, consents, offers and receipts.

Each is declared once; eip712 derives what is hashed, and the contracts hash the same. No paper here decides anything.
"""

from enum import IntEnum

from lading_protocol import sheaves
from lading_protocol.eip712 import U8, U32, U40, U64, U96, Addr, Bytes32, Domain, Signable, Signed
from lading_protocol.errors import BadMessage
from lading_protocol.ids import Address, Digest, Signature
from lading_protocol.transcript import sha256

ROW_SIZE = 76
# What walls an agent in: nothing, WebAssembly, a confined process, a container, one on gVisor, a virtual machine.
TIERS = ("", "W", "P", "C", "G", "V")


class Finish(IntEnum):
    """Why an attempt ended. A receipt signed while tokens still flow says RUNNING."""

    RUNNING = 0
    STOP = 1
    LENGTH = 2
    CANCELLED = 3
    FAILED = 4


class Voucher(Signable, frozen=True):
    """A payer's cumulative promise to one host under one set of terms. A higher one replaces a lower one."""

    host: Addr
    terms: Bytes32
    epoch: U32
    cumulative: U96


class Lock(Signable, frozen=True):
    """Moves the payer's free deposit into the channel up to `cumulative`, without a transaction of the payer."""

    host: Addr
    terms: Bytes32
    epoch: U32
    cumulative: U96


class SessionConsent(Signable, frozen=True):
    """Signed by a session key: it agrees to spend for this payer, so that nobody else can claim the key."""

    payer: Addr


class SessionGrant(Signable, frozen=True):
    """Signed by a payer instead of a transaction: `key` may lock up to `cap` wei of its deposit until second `expiry`.

    `nonce` is what the contract names as the payer's next: each grant counts once, and none after a revocation.
    """

    payer: Addr
    key: Addr
    cap: U96
    expiry: U40
    nonce: U64


class TermsConsent(Signable, frozen=True):
    """Signed by a party of a split table: it agrees to the table of this id, if it is on chain before `deadline`."""

    terms: Bytes32
    deadline: U40


class StakeConsent(Signable, frozen=True):
    """Signed by an operator key: it agrees that this cold address owns its stake."""

    owner: Addr


class Offer(Signable, frozen=True):
    """A host's signed advert for one agent. Prices are wei per 1,000 tokens; `expires` is Unix seconds.

    A higher `sequence` replaces a lower one. `detail` is the sha256 of the OfferDetail that travels beside it.
    """

    host: Addr
    agent: Bytes32
    terms: Bytes32
    price_in: U96
    price_out: U96
    slots: U32
    sequence: U64
    expires: U64
    detail: Bytes32


class Receipt(Signable, frozen=True):
    """A host's record of one attempt so far: what was asked, what was delivered, what it costs.

    `first` is the absolute index of the attempt's first output token, `output_tokens` how many this attempt delivered.
    `amount` (wei) follows from the prices: see pricing.attempt_amount. `finish` is a Finish, `tier` the place in
    TIERS of the isolation that the offer promised. Its host signs it alone or in a sheaf.
    """

    job: Bytes32
    attempt: U32
    request: Bytes32
    agent: Bytes32
    terms: Bytes32
    host: Addr
    signer: Addr
    epoch: U32
    first: U32
    prompt_tokens: U32
    output_tokens: U32
    prompt_hash: Bytes32
    commitment: Bytes32
    price_in: U96
    price_out: U96
    amount: U96
    finish: U8
    issued_at: U64
    tier: U8 = 0

    @classmethod
    def signer_of(cls, digest: Digest, signature: bytes, domain: Domain) -> Address:
        return sheaves.signer(digest, signature, domain)

    @classmethod
    def takes(cls, size: int) -> bool:
        return sheaves.fits(size)


class Served(Signable, frozen=True):
    """A tenant's cumulative word that its lease was served for so many seconds. A higher one replaces a lower one."""

    lease: Bytes32
    served: U32


SignedVoucher = Signed[Voucher]
SignedLock = Signed[Lock]
SignedOffer = Signed[Offer]
SignedReceipt = Signed[Receipt]
SignedGrant = Signed[SessionGrant]
SignedServed = Signed[Served]


def pack_row(cumulative: int, signature: bytes) -> bytes:
    """One 76-byte row of a redeem or lock batch: cumulative (12) || r (32) || s with the parity in its top bit (32)."""
    return cumulative.to_bytes(12, "big") + compact(signature)


def compact(signature: bytes) -> bytes:
    """The same signature in 64 bytes, its parity in the top bit of s (ERC-2098). Raises BadMessage."""
    if len(signature) != 65:
        raise BadMessage("A signature has 65 bytes.")
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + s.to_bytes(32, "big")


def expand(signature: bytes) -> Signature:
    """The inverse of `compact`. Raises BadMessage."""
    if len(signature) != 64:
        raise BadMessage("A compact signature has 64 bytes.")
    s = int.from_bytes(signature[32:], "big")
    low = (s & (1 << 255) - 1).to_bytes(32, "big")
    return Signature(signature[:32] + low + bytes([27 + (s >> 255)]))


def unpack_row(row: bytes) -> tuple[int, Signature]:
    if len(row) != ROW_SIZE:
        raise BadMessage(f"A row has {ROW_SIZE} bytes, got {len(row)}.")
    return int.from_bytes(row[:12], "big"), expand(row[12:])


def receipt_leaf(receipt: SignedReceipt) -> Digest:
    """What an anchored Merkle root of receipts holds: the sha256 of the packed receipt."""
    return packed_leaf(receipt.pack())


def packed_leaf(packed: bytes) -> Digest:
    return sha256(packed)
