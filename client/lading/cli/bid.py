"""`lading bid`: auctions of shares and of promotion, from opening one to taking what it gave."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from lading.cli import auctions, context, history
from lading.cli.auctions import Sale, Slot
from lading.cli.context import Desk
from lading.cli.flags import Asking, Signing, Switch
from lading.cli.forecast import simulate
from lading.cli.intent import Act, Intent
from lading.cli.output import emit, emit_rows, out
from lading.cli.tables import typed_consents, typed_party
from lading.errors import BadSettings
from lading.seals import Seal, new_salt
from lading_contracts import events
from lading_contracts.deployment import Contracts
from lading_contracts.epochs import Calendar
from lading_contracts.promotions import PromotionBid
from lading_contracts.shares import Lot, auction_id
from lading_protocol.ids import Address, AgentId, Digest, Wei, digest, from_hex, short, to_hex

app = App(name="bid", help="Bid for a share of an agent's revenue, or for a place in the index.")
app.command(simulate)
Auction = Annotated[str, Parameter(help="A share auction's 0x id, or a promotion slot as EPOCH/SLOT.")]
Named = Annotated[str | None, Parameter(help="Only this auction: a 0x id, or EPOCH/SLOT (default all that are due).")]


@app.command(name="list")
async def list_(*, everything: Switch = False, how: Asking = Asking()) -> int:
    """List the auctions that still run, with your bids.

    Parameters
    ----------
    everything
        Those that are over too.
    """
    async with context.desk(how) as desk:
        rows = [row async for row in _listed(desk, everything, how.as_json)]
        emit_rows(rows, how.as_json, "No auction is running. Promotion slots open by themselves every epoch.")
    return 0


@app.command(name="open")
async def open_(
    agent: str,
    /,
    *,
    role: str,
    seats: int = 1,
    reserve: str,
    party: list[str],
    epoch: int | None = None,
    consent: list[str] | None = None,
    how: Signing = Signing(),
) -> int:
    """Put a role of your agent up for an epoch: the lowest asks win, and all winners get the same share.

    Parameters
    ----------
    agent
        The agent's 0x digest.
    role
        host, oem, weaver, curator or maker.
    seats
        How many winners there may be, 1 to 8.
    reserve
        The most that a seat may cost, such as 5%.
    party
        A fixed line of the table as ROLE=ADDRESS:BPS, such as maker=0x…:1000; the first also gets what is saved.
    epoch
        The epoch whose terms it makes (default the next one that can still be bid on).
    consent
        A party's consent to the fixed table, where it gave no standing one.
    """
    async with context.desk(how) as desk:
        calendar = await desk.chain.share_auctions.calendar()
        now = await auctions.present(desk)
        which = _next_epoch(calendar, now) if epoch is None else epoch
        lot = Lot(auctions.typed_agent(agent), which, auctions.typed_role(role), seats, auctions.typed_share(reserve))
        base = tuple(typed_party(text) for text in party)
        consents = typed_consents(desk.record, lot.agent, base, consent or [])
        words = (
            f"Open {seats} seat(s) of the role {role} of agent {agent} for epoch {which}, "
            f"at most {auctions.share(lot.reserve_bps)} each, beside: {auctions.table_words(base)}."
        )
        intent = Intent(desk.chain, desk.me)
        intent.will(words, lambda c: c.share_auctions.open(desk.me, lot, base, consents))
        if await intent.carry_out(how):
            found = await auctions.sale(desk, auction_id(lot.agent, lot.epoch))
            closes = auctions.until(calendar, which, now, how.as_json)
            emit({"auction": found.name, "epoch": which, "until": closes}, how.as_json)
    return 0


@app.command
async def commit(
    auction: Auction, bid: str, /, *, agent: str | None = None, replace: Switch = False, how: Signing = Signing()
) -> int:
    """Seal a bid, with the deposit. What opens it is kept in your home folder: without it the deposit is lost.

    Parameters
    ----------
    auction
        A share auction's 0x id, or a promotion slot as EPOCH/SLOT.
    bid
        The share that you ask, such as 2.5%; or what you pay for the slot at most, in coins.
    agent
        The agent to promote, by its 0x digest.
    replace
        Forget another bid on this auction whose sending failed. If it did reach the chain, its deposit is lost.
    """
    async with context.desk(how) as desk:
        named = auctions.typed_auction(auction)
        if isinstance(named, Slot):
            seal, deposit = await _promotion_seal(desk, named, bid, agent)
        else:
            seal, deposit = await _share_seal(desk, await auctions.sale(desk, named), bid)
        seal = _kept(auctions.seals(desk).find(seal.kind, seal.contract, seal.auction, seal.bidder), seal, replace)
        intent = Intent(desk.chain, desk.me)
        await intent.will_allow(Address(from_hex(seal.contract, 20)), deposit)
        shown = auctions.share(int(seal.bid)) if seal.kind == "share" else desk.money(int(seal.bid))
        words = f"Seal a bid of {shown} on {auction}; {desk.money(deposit)} are lost if you do not open it in time."
        intent.will(words, lambda c: _send_seal(desk, c, seal))
        if await intent.carry_out(how):
            calendar = await desk.chain.share_auctions.calendar()
            epoch = named.epoch if isinstance(named, Slot) else (await auctions.sale(desk, named)).opened.epoch
            opens, closes = calendar.commit_ends(epoch), calendar.start_of(epoch)
            emit(
                {
                    "auction": auction,
                    "bid": seal.bid if how.as_json else shown,
                    "open_from": context.moment(opens, how.as_json),
                    "open_before": context.moment(closes, how.as_json),
                },
                how.as_json,
            )
            if not how.as_json:
                out.print("[dim]Open it in that time: lading bid reveal.[/]")
    return 0


@app.command
async def reveal(auction: Named = None, /, *, how: Signing = Signing()) -> int:
    """Open your sealed bids that can be opened now; the deposits come back."""
    async with context.desk(how) as desk:
        intent = Intent(desk.chain, desk.me)
        due = [seal async for seal in _openable(desk, auction)]
        for seal in due:
            await _will_reveal(intent, desk, seal)
        if not due:
            emit({"opened": 0}, how.as_json)
        elif await intent.carry_out(how):
            for seal in due:
                auctions.seals(desk).put(msgspec.structs.replace(seal, state="opened"))
            emit({"opened": len(due)}, how.as_json)
    return 0


@app.command
async def settle(auction: Named = None, /, *, how: Signing = Signing()) -> int:
    """Settle auctions whose bidding is over; anyone may, and all deposits of sealed bids are destroyed."""
    async with context.desk(how) as desk:
        intent = Intent(desk.chain, desk.me)
        async for words, act in _settleable(desk, auction):
            intent.will(words, act)
        if not intent.words:
            emit({"settled": 0}, how.as_json)
        elif await intent.carry_out(how):
            emit({"settled": len(intent.words)}, how.as_json)
    return 0


# --- what is sealed ---


async def _share_seal(desk: Desk, sale: Sale, bid: str) -> tuple[Seal, int]:
    """Raises BadSettings for a bid that the auction would never take."""
    bps, rules = auctions.typed_share(bid), sale.rules
    if bps > rules.reserve_bps:
        raise BadSettings(f"{bid} is over the reserve.", hint=f"Ask {auctions.share(rules.reserve_bps)} at most.")
    if any(party.payee == desk.me.address and int(party.role) == rules.role for party in rules.base):
        raise BadSettings("You stand in the fixed table in this role already.", hint="Bid with another key.")
    return _seal(desk, "share", desk.record.share_auctions, sale.name, str(bps)), sale.opened.deposit


async def _promotion_seal(desk: Desk, slot: Slot, bid: str, agent: str | None) -> tuple[Seal, int]:
    """Raises BadSettings."""
    if agent is None:
        raise BadSettings("A promotion needs the agent to promote.", hint="Add --agent 0x….")
    which, wei = auctions.typed_agent(agent), desk.wei(bid)
    if await desk.chain.registry.agent(which) is None:
        raise BadSettings(f"Nobody registered agent {agent}.", hint="Publish it first: lading agent publish.")
    now = await desk.chain.promotion_auctions.slot(slot.epoch, slot.number)
    _, params = await desk.chain.parameters.market()
    if now.committed:
        params = await desk.chain.parameters.market_at(now.version)
    if wei < params.promotion_reserve:
        raise BadSettings(
            f"{desk.money(wei)} is below the reserve.", hint=f"Bid {desk.money(params.promotion_reserve)} or more."
        )
    seal = _seal(desk, "promotion", desk.record.promotion_auctions, slot.name, str(wei))
    return msgspec.structs.replace(seal, agent=to_hex(which)), params.promotion_deposit


def _seal(desk: Desk, kind: str, contract: bytes, auction: str, bid: str) -> Seal:
    return Seal(
        kind=kind,
        chain_id=desk.record.chain_id,
        contract=to_hex(contract),
        auction=auction,
        bidder=to_hex(desk.me.address),
        bid=bid,
        salt=to_hex(new_salt()),
        state="draft",
    )


def _kept(known: Seal | None, fresh: Seal, replace: bool) -> Seal:
    """A draft of the same bid goes out again with its salt, for it may have reached the chain. Raises BadSettings."""
    if known is None:
        return fresh
    if known.state != "draft":
        raise BadSettings(f"You sealed a bid on {fresh.auction} already.", hint="One bid an auction: lading bid list.")
    if (known.bid, known.agent) == (fresh.bid, fresh.agent):
        return known
    if replace:
        return fresh
    raise BadSettings(
        f"Another bid of yours on {fresh.auction} was being sent and may have reached the chain.",
        hint="Send that one again; or, if you are sure that it never arrived, add --replace.",
    )


async def _send_seal(desk: Desk, chain: Contracts, seal: Seal) -> None:
    """On disk first as a draft, as sealed once the chain has it. A rehearsal writes nothing."""
    kept = auctions.seals(desk)
    real = chain is desk.chain
    if real:
        kept.put(seal)
    if seal.kind == "share":
        id_ = digest(seal.auction)
        sealed = chain.share_auctions.seal(id_, desk.me.address, int(seal.bid), from_hex(seal.salt, 32))
        await chain.share_auctions.commit(desk.me, id_, sealed)
    else:
        slot = auctions.typed_auction(seal.auction)
        assert isinstance(slot, Slot)
        sealed = chain.promotion_auctions.seal(slot.epoch, slot.number, desk.me.address, _promotion_bid(seal))
        await chain.promotion_auctions.commit(desk.me, slot.epoch, slot.number, sealed)
    if real:
        kept.put(msgspec.structs.replace(seal, state="sealed"))


def _promotion_bid(seal: Seal) -> PromotionBid:
    return PromotionBid(AgentId(digest(seal.agent)), Wei(int(seal.bid)), from_hex(seal.salt, 32))


# --- what is opened ---


async def _openable(desk: Desk, only: str | None) -> AsyncIterator[Seal]:
    """The caller's bids that the chain holds sealed and takes openings for now."""
    calendar, now = await desk.chain.share_auctions.calendar(), await auctions.present(desk)
    for seal in auctions.seals(desk).all():
        ours = seal.bidder == to_hex(desk.me.address) and seal.chain_id == desk.record.chain_id
        if not ours or seal.state == "opened" or only not in (None, seal.auction):
            continue
        named = auctions.typed_auction(seal.auction)
        if isinstance(named, Slot):
            standing = await desk.chain.promotion_auctions.bid_of(named.epoch, named.number, desk.me.address)
            epoch = named.epoch
        else:
            found = await desk.chain.share_auctions.auction(named)
            standing = await desk.chain.share_auctions.bid_of(named, desk.me.address)
            epoch = 0 if found is None else found.epoch
        if standing.order and not standing.revealed and auctions.phase(calendar, epoch, now) == "opening":
            yield seal


async def _will_reveal(intent: Intent, desk: Desk, seal: Seal) -> None:
    named = auctions.typed_auction(seal.auction)
    if isinstance(named, Slot):
        bid = _promotion_bid(seal)
        await intent.will_allow(desk.record.promotion_auctions, bid.amount)
        words = (
            f"Open your bid of {desk.money(bid.amount)} for slot {named.name}: it is taken now; what is above "
            "the second price, or all of it if you are beaten, comes back."
        )
        intent.will(words, lambda c: c.promotion_auctions.reveal(desk.me, named.epoch, named.number, bid))
        return
    base = (await auctions.sale(desk, named)).opened.base
    bps, salt = int(seal.bid), from_hex(seal.salt, 32)
    words = (
        f"Open your bid of {auctions.share(bps)} in auction {seal.auction}: you agree to that share or a larger one."
    )
    intent.will(words, lambda c: c.share_auctions.reveal(desk.me, named, bps, salt, base))


# --- what is over, and what is shown ---


async def _settleable(desk: Desk, only: str | None) -> AsyncIterator[tuple[str, Act]]:
    calendar, moment = await desk.chain.share_auctions.calendar(), await auctions.present(desk)
    for id_, sale in (await auctions.sales(desk)).items():
        due = sale.state == "open" and auctions.phase(calendar, sale.opened.epoch, moment) == "over"
        if due and only in (None, sale.name):
            words = f"Settle share auction {sale.name} of epoch {sale.opened.epoch}: its result becomes the terms."
            yield words, _settle_sale(desk, id_, sale)
    async for slot in _slots(desk, calendar, moment):
        now = await desk.chain.promotion_auctions.slot(slot.epoch, slot.number)
        over = auctions.phase(calendar, slot.epoch, moment) == "over"
        if now.committed and not now.settled and over and only in (None, slot.name):
            yield f"Settle promotion slot {slot.name}: the winner pays the second price.", _settle_slot(desk, slot)


def _settle_sale(desk: Desk, id_: Digest, sale: Sale) -> Act:
    return lambda c: c.share_auctions.settle(desk.me, id_, sale.opened.base)


def _settle_slot(desk: Desk, slot: Slot) -> Act:
    return lambda c: c.promotion_auctions.settle(desk.me, slot.epoch, slot.number)


async def _slots(desk: Desk, calendar: Calendar, moment: int) -> AsyncIterator[Slot]:
    """Every slot that somebody bid on, and those of the next epoch that can still be bid on."""
    seen: dict[Slot, None] = {}
    async for event in history.past(desk.chain, (desk.record.promotion_auctions,)):
        if isinstance(event, events.PromotionSealed):
            seen[Slot(event.epoch, event.slot)] = None
    _, params = await desk.chain.parameters.market()
    coming = _next_epoch(calendar, moment)
    for number in range(params.promotion_slots):
        seen[Slot(coming, number)] = None
    for slot in seen:
        yield slot


async def _listed(desk: Desk, everything: bool, as_json: bool) -> AsyncIterator[dict[str, Any]]:
    calendar, moment = await desk.chain.share_auctions.calendar(), await auctions.present(desk)
    mine = {seal.auction: seal for seal in auctions.seals(desk).all() if seal.bidder == to_hex(desk.me.address)}
    for id_, sale in (await auctions.sales(desk)).items():
        if sale.state != "open" and not everything:
            continue
        now = await desk.chain.share_auctions.auction(id_)
        state = auctions.phase(calendar, sale.opened.epoch, moment) if sale.state == "open" else sale.state
        yield {
            "auction": sale.name,
            "for": f"{sale.role} of {short(sale.opened.agent)}, epoch {sale.opened.epoch}",
            "state": "to settle" if state == "over" else state,
            "until": auctions.until(calendar, sale.opened.epoch, moment, as_json) if sale.state == "open" else "",
            "reserve": auctions.share(sale.opened.reserve_bps, as_json),
            "bids": f"{now.committed} sealed, {now.revealed} opened" if now else "",
            "yours": _own(mine.get(sale.name), desk),
        }
    async for slot in _slots(desk, calendar, moment):
        held = await desk.chain.promotion_auctions.slot(slot.epoch, slot.number)
        if held.settled and not everything:
            continue
        state = "settled" if held.settled else auctions.phase(calendar, slot.epoch, moment)
        yield {
            "auction": slot.name,
            "for": "promotion" + (f" of {short(held.agent)}" if any(held.agent) else ""),
            "state": "to settle" if state == "over" else state,
            "until": "" if held.settled else auctions.until(calendar, slot.epoch, moment, as_json),
            "reserve": desk.money(held.price, as_json) if held.committed else "",
            "bids": f"{held.committed} sealed, {held.revealed} opened",
            "yours": _own(mine.get(slot.name), desk),
        }


def _own(seal: Seal | None, desk: Desk) -> str:
    if seal is None:
        return ""
    shown = auctions.share(int(seal.bid)) if seal.kind == "share" else desk.money(int(seal.bid))
    return f"{shown}, {seal.state}"


def _next_epoch(calendar: Calendar, now: int) -> int:
    """The soonest epoch on which bids can still be sealed."""
    coming = calendar.epoch_at(now) + 1
    return coming if now < calendar.commit_ends(coming) else coming + 1
