"""What public randomness decides about one receipt that was picked: who checks it, and whether two must. Pure.

Whole numbers only, so that anybody who knows the randomness and the pool comes to the same names.
"""

from collections.abc import Mapping

from lading_protocol.ids import Address, Digest
from lading_protocol.transcript import sha256


def auditor(randomness: bytes, leaf: bytes, turn: int, stakes: Mapping[Address, int]) -> Address | None:
    """Who is asked as number `turn` (from 0) out of `stakes`: weighted by what each has at stake.

    Those who were asked before are not in `stakes` any more, which makes it a draw without replacement. None where
    nobody has a stake. The bias of the remainder is below 2^-128 for any supply of coins.
    """
    total = sum(stake for stake in stakes.values() if stake > 0)
    if not total:
        return None
    point = int.from_bytes(sha256(b"lading/auditor/1" + randomness + leaf + turn.to_bytes(4, "big")), "big") % total
    for who in sorted(stakes):
        point -= max(stakes[who], 0)
        if point < 0:
            return who
    raise AssertionError("unreachable: the point lies below the total")


def wants_second(secret: bytes, picked: bytes, rate_ppm: int) -> bool:
    """Whether a clean finding is checked by a second auditor, so that friends cannot clear each other unseen.

    `picked` is the randomness and the leaf. `secret` is the coordinator's, its hash anchored with the receipts: so
    neither can the auditor know the answer nor the coordinator choose it.
    """
    draw = int.from_bytes(sha256(b"lading/second/1" + secret + picked)[:8], "big")
    return draw * 1_000_000 < rate_ppm << 64


def secret_leaf(secret: bytes) -> Digest:
    """What stands for a round's secret among the leaves of its root."""
    return sha256(b"lading/secret/1" + secret)


def order_leaf(leaf: bytes, signer: bytes) -> Digest:
    """What stands, in a later round, for an audit that the payer of the receipt `leaf` asked for."""
    return sha256(b"lading/order/1" + signer + leaf)


def canary_leaf(salt: bytes, leaf: bytes, fault: str) -> Digest:
    """What fixes, before anybody is asked, that the receipt `leaf` is false and how."""
    return sha256(b"lading/canary/1" + salt + leaf + fault.encode())
