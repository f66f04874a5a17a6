"""What shows that the prompt of an answer that began elsewhere is billed: the receipt of the host that read it.

Pure.
"""

from typing import NamedTuple

from lading_protocol.eip712 import Domain, unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address
from lading_protocol.messages import Open, request_hash
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Receipt

# An answer may take hours, and its first receipt comes with its beginning.
PROOF_SECONDS = 6 * 3600.0


class Prompt(NamedTuple):
    """A prompt that is billed: how many tokens it has, and their hash."""

    tokens: int
    hash: bytes


def read_proof(opening: Open, offer: KnownOffer, court: Domain, now: float) -> Receipt | None:
    """The receipt, where it is one of this answer's first tokens: signed by its host, for the same request to the same
    agent, from index 0 on. That its host has a stake which it risks by it is for the caller to find out."""
    if not (opening.emitted and opening.proof):
        return None
    try:
        signed = unpack(Receipt, opening.proof)
        signed.check(court, Address(signed.value.host))
    except LadingError:
        return None
    receipt = signed.value
    began = receipt.first == 0 and receipt.output_tokens > 0 and receipt.prompt_tokens > 0
    fresh = -60.0 <= now - receipt.issued_at <= PROOF_SECONDS
    same = receipt.agent == offer.agent and receipt.request == request_hash(opening.request)
    return receipt if began and fresh and same else None


def prompt_of(receipt: Receipt) -> Prompt:
    return Prompt(receipt.prompt_tokens, bytes(receipt.prompt_hash))
