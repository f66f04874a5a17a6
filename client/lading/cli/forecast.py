"""`lading bid simulate`: what a bid would get, by the contracts' own rules, from what is known and what is supposed."""

from collections.abc import Sequence
from typing import Any

from lading.cli import auctions, context
from lading.cli.auctions import Slot
from lading.cli.context import Desk
from lading.cli.flags import Asking
from lading.cli.output import emit
from lading.core.bidding import forecast_promotion, forecast_share
from lading_protocol.ids import Digest


async def simulate(auction: str, bid: str, /, *, others: list[str] | None = None, how: Asking = Asking()) -> int:
    """Say what you would get for a bid. Signs nothing, sends nothing, and asks the chain nothing that shows your bid.

    Parameters
    ----------
    auction
        A share auction's 0x id, or a promotion slot as EPOCH/SLOT.
    bid
        The share that you would ask, such as 2.5%; or what you would pay for the slot at most, in coins.
    others
        What you suppose that another bids, beside the bids that are open already (repeatable).
    """
    async with context.desk(how) as desk:
        named = auctions.typed_auction(auction)
        if isinstance(named, Slot):
            emit(await _promotion(desk, named, bid, others or [], how.as_json), how.as_json)
        else:
            emit(await _share(desk, named, bid, others or [], how.as_json), how.as_json)
    return 0


async def _share(desk: Desk, id_: Digest, bid: str, others: Sequence[str], as_json: bool) -> dict[str, Any]:
    found = await auctions.sale(desk, id_)
    contract = desk.chain.share_auctions
    mine, rules = auctions.typed_share(bid), found.rules
    known = [one.bps for one in await contract.leading(id_) if one.bidder != desk.me.address]
    now = await contract.auction(id_)
    sealed = 0 if now is None else now.committed - now.revealed
    outcome = forecast_share(rules, mine, [*known, *map(auctions.typed_share, others)])
    beaten = outcome.lowest_to_lose
    return {
        "auction": found.name,
        "role": found.role,
        "your_bid": auctions.share(mine, as_json),
        "would_win": outcome.wins if as_json else "yes" if outcome.wins else "no",
        "your_share": auctions.share(outcome.bps, as_json),
        "of_100_paid": outcome.bps / 100 if as_json else f"{outcome.bps / 100:g} {desk.record.symbol}",
        "seats": rules.seats,
        "wins_below": auctions.share(rules.reserve_bps + 1 if beaten is None else beaten, as_json),
        "counted": f"{len(known)} open bids, {len(others)} supposed; {sealed} sealed ones are not known to anybody"
        if not as_json
        else {"open": len(known), "supposed": len(others), "sealed": sealed},
    }


async def _promotion(desk: Desk, slot: Slot, bid: str, others: Sequence[str], as_json: bool) -> dict[str, Any]:
    contract = desk.chain.promotion_auctions
    now = await contract.slot(slot.epoch, slot.number)
    _, params = await desk.chain.parameters.market()
    if now.committed:
        params = await desk.chain.parameters.market_at(now.version)
    known = [] if not any(now.winner) or now.winner == desk.me.address else [now.best]
    outcome = forecast_promotion(params.promotion_reserve, desk.wei(bid), [*known, *map(desk.wei, others)])
    sealed = now.committed - now.revealed
    return {
        "slot": slot.name,
        "your_bid": desk.money(desk.wei(bid), as_json),
        "would_win": outcome.wins if as_json else "yes" if outcome.wins else "no",
        "you_would_pay": desk.money(outcome.price, as_json),
        "to_beat": desk.money(outcome.to_beat, as_json),
        "reserve": desk.money(params.promotion_reserve, as_json),
        "counted": f"the best open bid, {len(others)} supposed; {sealed} sealed ones are not known to anybody"
        if not as_json
        else {"open": len(known), "supposed": len(others), "sealed": sealed},
    }
