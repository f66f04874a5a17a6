"""Who may spend and who may be chosen, given what the chain says. Pure; `now` is Unix seconds."""

from typing import Final

import msgspec

from lading_coordinator.errors import ApiError
from lading_protocol.ids import Address, Wei, to_hex
from lading_protocol.keys import PrivateKey


class View(msgspec.Struct, frozen=True):
    """A session as the chain last showed it. `free` is the payer's deposit that no exit has asked for (wei)."""

    payer: Address
    cap: Wei
    locked: Wei
    expiry: int
    free: Wei


class Seat:
    """One API key's session. `view` is None until the payer has authorized it; `dirty` asks for a fresh look."""

    __slots__ = ("checked_at", "created", "dirty", "key", "key_hash", "payer", "view")

    def __init__(self, key_hash: bytes, key: PrivateKey, payer: Address, created: float) -> None:
        self.key_hash: Final = key_hash
        self.key: Final = key
        self.payer: Final = payer
        self.created: Final = created
        self.view: View | None = None
        self.dirty = False
        self.checked_at = 0.0


def limit_of(view: View) -> Wei:
    """All that the session may ever lock: what it has, and what cap and deposit still give."""
    return Wei(min(view.cap, view.locked + view.free))


def refusal_of(seat: Seat, now: float) -> ApiError | None:
    """Why the key cannot be used now, or None."""
    view = seat.view
    if view is not None and view.expiry > now and view.payer == seat.payer:
        return None
    who = to_hex(seat.key.address)
    if view is None and seat.dirty:
        return ApiError(
            503,
            "chain_unreachable",
            "This API key's session cannot be looked up: the chain does not answer.",
            hint="Try again after 5 s.",
            retry_after=5,
        )
    if view is None:
        return ApiError(
            401,
            "session_not_authorized",
            f"The payer {to_hex(seat.payer)} has not authorized the session {who} on chain yet.",
            hint="Call Settlement.authorize with the consent that came with the key; the key works seconds later.",
        )
    if view.payer != seat.payer:
        return ApiError(401, "session_not_authorized", f"The session {who} belongs to another payer on chain.")
    if view.expiry == 0:
        return ApiError(
            401, "session_revoked", "This API key's session was revoked by its payer.", hint="Make a new session."
        )
    return ApiError(
        401,
        "session_expired",
        f"This API key's session expired {int(now) - view.expiry} s ago.",
        hint="Make a new one: lading wallet session.",
    )


def bar_reason(active: bool, owner: Address | None, jailed_until: int, now: float) -> str:
    """Why a host is kept out, in words it will read; empty when it may work."""
    if active:
        return ""
    if owner is None:
        return "has no stake"
    if jailed_until > now:
        return "is jailed for a proven fault"
    return "has less stake than the minimum"
