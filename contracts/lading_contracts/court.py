"""Disputes about receipts, as typed verbs: opened on a receipt that the host signed, or under a root it anchored."""

from collections.abc import Sequence
from typing import Any

import msgspec

from lading_contracts import abi
from lading_contracts.committee import Ballot, Committee, Dispute, Verdict, Vote
from lading_contracts.parameters import CourtParams
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address, Digest
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Receipt, SignedReceipt

__all__ = [
    "Anchor",
    "AuditCourt",
    "Ballot",
    "CourtParams",
    "Dispute",
    "Proof",
    "Verdict",
    "Vote",
    "attempt_id",
    "dispute_id",
]


class Anchor(msgspec.Struct, frozen=True):
    """A Merkle root of `count` receipts that a host put on record at second `anchored_at`."""

    anchored_at: int
    count: int


class Proof(msgspec.Struct, frozen=True):
    """Where a receipt lies under an anchored root: its leaf's index from 0, and the sibling hashes from the leaf up.

    A leaf is `receipts.receipt_leaf`; the tree is that of RFC 6962, an odd node carried up and without a sibling.
    """

    root: Digest
    index: int
    path: tuple[Digest, ...]


def dispute_id(receipt: Receipt, challenger: Address) -> Digest:
    """One per attempt and challenger, computed without asking the chain."""
    types = ("address", "bytes32", "uint32", "address")
    return keccak256(abi.encode(types, (receipt.host, receipt.job, receipt.attempt, challenger)))


def attempt_id(receipt: Receipt) -> Digest:
    """What a host is convicted of at most once, whoever proves it."""
    return keccak256(abi.encode(("address", "bytes32", "uint32"), (receipt.host, receipt.job, receipt.attempt)))


class AuditCourt(Committee):
    NAME = "AuditCourt"

    async def anchor(self, signer: Signer, root: bytes, count: int) -> TxReceipt:
        """Puts the Merkle root of `count` receipts on record. The anchor's number is in the Anchored event."""
        return await self._write(signer, "anchor", root, count)

    async def open(self, signer: Signer, receipt: SignedReceipt) -> Digest:
        """Opens a dispute with the bond (needs an allowance: see Coin.allow). Returns its id."""
        await self._write(signer, "open", _tuple(receipt.value), receipt.signature)
        return dispute_id(receipt.value, signer.address)

    async def open_anchored(self, signer: Signer, receipt: SignedReceipt, proof: Proof) -> Digest:
        """The same for a receipt under a root that its host anchored: the signature in the leaf need not be good."""
        where = proof.root, proof.index, _path(proof.path)
        await self._write(signer, "openAnchored", _tuple(receipt.value), receipt.signature, *where)
        return dispute_id(receipt.value, signer.address)

    # --- views ---

    async def anchor_of(self, poster: Address, root: bytes) -> Anchor | None:
        found = Anchor(*await self._view("anchorOf", poster, root))
        return found if found.anchored_at else None

    async def anchors(self) -> int:
        """How many roots were anchored, by all hosts."""
        return int((await self._view("anchors"))[0])

    async def convicted(self, attempt: bytes) -> bool:
        """Whether the host was slashed for this attempt: see `attempt_id`."""
        return bool((await self._view("convicted", attempt))[0])


def _tuple(receipt: Receipt) -> tuple[Any, ...]:
    return msgspec.structs.astuple(receipt)


def _path(path: Sequence[Digest]) -> list[Digest]:
    return list(path)
