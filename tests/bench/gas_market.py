"""The market's verbs: bids on shares and on promotion, leases and offers. Scenes as in gas_scenes.py.

Days pass here: these scenes come after those whose papers must be fresh.
"""

from __future__ import annotations

from lading_contracts.leases import LeaseRequest
from lading_contracts.promotions import PromotionBid
from lading_contracts.registry import Party, Role
from lading_contracts.shares import Lot, auction_id
from lading_protocol.ids import AgentId, Wei
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Offer, Served

from .gas_scenes import Scene, amount
from .gas_stage import COIN, START, Stage, Words

LEASE_START = START + 10**6
"""When the measured lease begins: later than all the auctions."""


def salt(name: str) -> bytes:
    return keccak256(b"salt of " + name.encode())


async def share_auction(stage: Stage) -> None:
    """One seat of a second curator, three bidders; the second bid is measured."""
    shares, maker = stage.contracts.share_auctions, await stage.actor("maker")
    agent, base = AgentId(keccak256(b"agent of the auction")), (Party(maker.address, Role.MAKER, 1_500),)
    await stage.contracts.registry.register(maker, agent)
    calendar = await shares.calendar()
    epoch = calendar.epoch_at(await stage.now()) + 1
    opening = shares.open(maker, Lot(agent, epoch, Role.CURATOR, 1, 500), base)
    await stage.measure("gas_share_auction_open", opening, Words("one seat, base table of one party"))
    auction = auction_id(agent, epoch)
    bids = {
        name: (await stage.actor(f"{name} curator", shares), bps)
        for name, bps in (("first", 310), ("second", 290), ("third", 450))
    }
    for name, (bidder, bps) in bids.items():
        verb = shares.commit(bidder, auction, shares.seal(auction, bidder.address, bps, salt(name)))
        if name == "second":
            await stage.measure("gas_share_bid_commit", verb, Words("with the deposit; not the first bid"))
        else:
            await verb
    await stage.until(calendar.commit_ends(epoch))
    for name, (bidder, bps) in bids.items():
        verb = shares.reveal(bidder, auction, bps, salt(name), base)
        if name == "second":
            await stage.measure("gas_share_bid_reveal", verb, Words("the deposit comes back; not the first bid"))
        else:
            await verb
    stage.together("gas_share_bid", ["gas_share_bid_commit", "gas_share_bid_reveal"], Words("commit and reveal"))
    await stage.until(calendar.start_of(epoch))
    words = "three bids on one seat; agrees the terms of the epoch"
    await stage.measure("gas_share_auction_settle", shares.settle(maker, auction, base), Words(words))


async def promotion(stage: Stage) -> None:
    """Three bidders for a slot; the second, which then leads, is measured."""
    promotions, maker = stage.contracts.promotion_auctions, await stage.actor("maker")
    agent = AgentId(keccak256(b"promoted agent"))
    await stage.contracts.registry.register(maker, agent)
    calendar = await promotions.calendar()
    epoch = calendar.epoch_at(await stage.now()) + 1
    bids = {
        name: (
            await stage.actor(f"{name} promoter", promotions),
            PromotionBid(agent, Wei(amount(coins * COIN, coins)), salt(name)),
        )
        for name, coins in (("first", 300), ("second", 500), ("third", 400))
    }
    for name, (bidder, bid) in bids.items():
        verb = promotions.commit(bidder, epoch, 0, promotions.seal(epoch, 0, bidder.address, bid))
        if name == "second":
            await stage.measure("gas_promotion_bid_commit", verb, Words("with the deposit; not the first bid"))
        else:
            await verb
    await stage.until(calendar.commit_ends(epoch))
    for name, (bidder, bid) in bids.items():
        verb = promotions.reveal(bidder, epoch, 0, bid)
        if name == "second":
            words = "takes the lead: pays the bid, and the leader before gets its own back"
            await stage.measure("gas_promotion_bid_reveal", verb, Words(words))
        else:
            await verb
    parts = ["gas_promotion_bid_commit", "gas_promotion_bid_reveal"]
    stage.together("gas_promotion_bid", parts, Words("commit and reveal"))
    await stage.until(calendar.start_of(epoch))
    verb = promotions.settle(maker, epoch, 0)
    await stage.measure("gas_promotion_settle", verb, Words("the price is destroyed: the agent has no parent"))


async def lease(stage: Stage) -> None:
    staking, leases = stage.contracts.staking, stage.contracts.leases
    tenant, host = await stage.actor("tenant", leases), await stage.actor("leasing host", staking, leases)
    await staking.stake(host, host.address, 2_000 * COIN)
    asked = LeaseRequest(
        agent=AgentId(keccak256(b"leased agent")),
        slots=4,
        start=LEASE_START,
        duration=86_400,
        rate=Wei(COIN // 50_000),
        host_bond=Wei(5 * COIN),
        tenant_bond=Wei(COIN),
        accept_by=LEASE_START - 3_600,
    )
    await leases.bid(tenant, asked)
    words = "for any active host; price and bond in escrow"
    await stage.measure("gas_lease_bid", leases.bid(tenant, asked), Words(words))
    taken = leases.lease_id(await leases.count() - 1)
    verb = leases.accept(host, taken, host.address)
    await stage.measure("gas_lease_accept", verb, Words("by an active operator, with its bond"))
    domain = stage.contracts.deployment.leases_domain
    await stage.until(LEASE_START + 20_000)
    await leases.collect(host, Served(taken, 9_000).sign(domain, tenant))
    verb = leases.collect(host, Served(taken, 18_000).sign(domain, tenant))
    await stage.measure("gas_lease_collect", verb, Words("a later signature; the host has coins"))


async def offer(stage: Stage) -> None:
    host, domain = await stage.actor("offering host"), stage.contracts.deployment.settlement_domain
    ids = host.address, keccak256(b"agent"), keccak256(b"terms")
    made = Offer(*ids, 10**12, 3 * 10**12, 4, 7, START + 10**8, keccak256(b"detail")).sign(domain, host)
    verb = stage.contracts.offer_book.publish(host, made)
    await stage.measure("gas_offer_publish", verb, Words("for hosts that want it there; off chain it is free"))


SCENES: tuple[Scene, ...] = (share_auction, promotion, lease, offer)
