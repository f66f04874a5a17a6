"""Which version and which features two peers speak with each other: the newest that both know, and what both can.

A program speaks its version and the one before. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from lading_protocol import OLDEST, VERSION

SPEECH = "/lading/speech/1"
AUDIT_FEE = "audit_fee"
PROOF = "proof"
FEATURES: tuple[str, ...] = (AUDIT_FEE, "call_back", PROOF, "relay", "straighten")

# A coordinator that indexes only some regions says which: IN_REGION and a region, each a feature.
IN_REGION = "in:"
# What time it is where it is said: AT and Unix seconds, a feature too.
AT = "at:"
MOST_FEATURE = 32
MOST_FEATURES = 64

Feature = Annotated[str, Meta(max_length=MOST_FEATURE)]
Number = Annotated[int, Meta(ge=1, le=1 << 16)]


class Speech(msgspec.Struct, frozen=True, array_like=True, tag="speech", forbid_unknown_fields=True):
    """What a program speaks: versions from `oldest` to `newest`, and features by name, of which unknown ones are no
    error."""

    oldest: Number
    newest: Number
    features: Annotated[tuple[Feature, ...], Meta(max_length=MOST_FEATURES)] = ()


class Agreed(msgspec.Struct, frozen=True):
    """`regions` are those whose hosts the peer would have; none: all."""

    version: int
    features: frozenset[str]
    regions: frozenset[str] = frozenset()


OURS = Speech(OLDEST, VERSION, FEATURES)
# A peer that does not answer is of the first version, which knew no question.
FIRST = Speech(1, 1)


def for_regions(regions: Sequence[str]) -> Speech:
    """What a coordinator of these regions speaks; of all, where one of them cannot be said."""
    said = tuple(IN_REGION + region for region in regions)
    if len(FEATURES) + len(said) > MOST_FEATURES or any(len(one) > MOST_FEATURE for one in said):
        return OURS
    return Speech(OLDEST, VERSION, (*FEATURES, *said))


def dated(speech: Speech, now: float) -> Speech:
    """The same, with the time (Unix seconds) at which it is said."""
    if len(speech.features) >= MOST_FEATURES:
        return speech
    return msgspec.structs.replace(speech, features=(*speech.features, f"{AT}{int(now)}"))


def time_of(speech: Speech) -> int | None:
    """When it was said, by the clock of who said it."""
    said = next((one.removeprefix(AT) for one in speech.features if one.startswith(AT)), "")
    return int(said) if said.isascii() and said.isdigit() else None


def agree(ours: Speech, theirs: Speech) -> Agreed | str:
    """What to speak; or, in words, why nothing can be spoken and who must update."""
    version = min(ours.newest, theirs.newest)
    if version >= max(ours.oldest, theirs.oldest):
        regions = {one.removeprefix(IN_REGION) for one in theirs.features if one.startswith(IN_REGION)}
        both = {one for one in ours.features if one in theirs.features and not one.startswith(AT)}
        return Agreed(version, frozenset(both), frozenset(regions))
    behind = "this program" if ours.newest < theirs.newest else "the peer"
    return (
        f"The peer speaks versions {theirs.oldest} to {theirs.newest} of the protocol, this program {ours.oldest} to "
        f"{ours.newest}: {behind} must be updated."
    )
