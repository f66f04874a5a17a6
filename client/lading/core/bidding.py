"""What an auction would come to: the contracts' clearing rules as pure functions, to simulate a bid with.

Shares: sealed, uniform price, in basis points; the lowest bids win. Promotion: sealed, second price, in wei; the
highest bid wins. Of equal bids the one that was sealed earlier wins. Sources: ShareAuctions.sol, PromotionAuctions.sol.
"""

from collections.abc import Sequence

import msgspec

from lading_contracts.registry import Party, Role

WHOLE_BPS = 10_000
HOSTS = 0


class ShareRules(msgspec.Struct, frozen=True):
    """`role` 0 is the host; `base` is the table that the auction began with, its first party gets what is saved."""

    role: int
    seats: int
    reserve_bps: int
    base: tuple[Party, ...]


class ShareBid(msgspec.Struct, frozen=True):
    """`order` counts sealed bids from 1."""

    bidder: bytes
    bps: int
    order: int


class Cleared(msgspec.Struct, frozen=True):
    """Every winner gets `bps`."""

    winners: tuple[bytes, ...]
    bps: int


def clear(rules: ShareRules, bids: Sequence[ShareBid]) -> Cleared:
    """Who wins and what all winners get: the lowest bid that won no seat, or the reserve when there was none."""
    ranked = sorted((bid for bid in bids if 0 < bid.bps <= rules.reserve_bps), key=lambda bid: (bid.bps, bid.order))
    winners = ranked[: rules.seats]
    bps = ranked[rules.seats].bps if len(ranked) > rules.seats else rules.reserve_bps
    return Cleared(tuple(bid.bidder for bid in winners), bps)


def final_table(rules: ShareRules, cleared: Cleared) -> tuple[Party, ...]:
    """The epoch's split table. The host's part is what it leaves of 10,000."""
    first, *others = rules.base
    if rules.role == HOSTS:
        rest = WHOLE_BPS - cleared.bps - sum(party.bps for party in others)
        return (msgspec.structs.replace(first, bps=rest), *others)
    saved = rules.seats * rules.reserve_bps - len(cleared.winners) * cleared.bps
    seats = (Party(winner, Role(rules.role), cleared.bps) for winner in cleared.winners)  # type: ignore[arg-type]
    return (msgspec.structs.replace(first, bps=first.bps + saved), *others, *seats)


class ShareForecast(msgspec.Struct, frozen=True):
    """What one bid gets against the others, and what it takes to win.

    `lowest_to_lose` is the lowest bid that would win no seat, None when every bid up to the reserve wins one.
    """

    wins: bool
    bps: int
    lowest_to_lose: int | None


def forecast_share(rules: ShareRules, mine: int, others: Sequence[int]) -> ShareForecast:
    """`mine` is sealed after all `others`: of equal bids the others win. Bids in basis points."""
    bids = [ShareBid(b"other%d" % at, bps, at + 1) for at, bps in enumerate(others)]
    cleared = clear(rules, [*bids, ShareBid(b"mine", mine, len(bids) + 1)])
    valid = sorted(bps for bps in others if 0 < bps <= rules.reserve_bps)
    barrier = valid[rules.seats - 1] if len(valid) >= rules.seats else None
    wins = b"mine" in cleared.winners
    return ShareForecast(wins, cleared.bps if wins else 0, barrier)


class PromotionForecast(msgspec.Struct, frozen=True):
    """`price` in wei is what the bid would pay if it won; `to_beat` is what it must pass."""

    wins: bool
    price: int
    to_beat: int


def forecast_promotion(reserve: int, mine: int, others: Sequence[int]) -> PromotionForecast:
    """`mine` is sealed after all `others`: of equal bids the others win. Amounts in wei."""
    valid = [amount for amount in others if amount >= reserve]
    best = max(valid, default=0)
    wins = mine >= reserve and mine > best
    return PromotionForecast(wins, max(best, reserve) if wins else 0, max(best, reserve - 1))
