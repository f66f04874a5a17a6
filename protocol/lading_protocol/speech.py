"""Which version and which features two peers speak with each other: the newest that both know, and what both can.

A program speaks its version and the one before. Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lading_protocol import OLDEST, VERSION

SPEECH = "/lading/speech/1"
AUDIT_FEE = "audit_fee"
PROOF = "proof"
FEATURES: tuple[str, ...] = (AUDIT_FEE, "call_back", PROOF, "relay", "straighten")

Feature = Annotated[str, Meta(max_length=32)]
Number = Annotated[int, Meta(ge=1, le=1 << 16)]


class Speech(msgspec.Struct, frozen=True, array_like=True, tag="speech", forbid_unknown_fields=True):
    """What a program speaks: versions from `oldest` to `newest`, and features by name, of which unknown ones are no
    error."""

    oldest: Number
    newest: Number
    features: Annotated[tuple[Feature, ...], Meta(max_length=64)] = ()


class Agreed(msgspec.Struct, frozen=True):
    version: int
    features: frozenset[str]


OURS = Speech(OLDEST, VERSION, FEATURES)
# A peer that does not answer is of the first version, which knew no question.
FIRST = Speech(1, 1)


def agree(ours: Speech, theirs: Speech) -> Agreed | str:
    """What to speak; or, in words, why nothing can be spoken and who must update."""
    version = min(ours.newest, theirs.newest)
    if version >= max(ours.oldest, theirs.oldest):
        return Agreed(version, frozenset(ours.features) & frozenset(theirs.features))
    behind = "this program" if ours.newest < theirs.newest else "the peer"
    return (
        f"The peer speaks versions {theirs.oldest} to {theirs.newest} of the protocol, this program {ours.oldest} to "
        f"{ours.newest}: {behind} must be updated."
    )
