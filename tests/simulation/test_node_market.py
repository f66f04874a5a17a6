"""Any one host knows the market: a client without a coordinator asks a single peer and learns of all."""

import asyncio

import msgspec

from factories import key
from lading_contracts.registry import Party, Role
from lading_contracts.shares import Lot
from lading_net.clock import run_virtual
from lading_net.messages import MessageStream
from lading_node import status
from lading_node.agents import LANDING_SECONDS, Serving
from lading_node.node import Node
from lading_node.terms import LOOK_SECONDS
from lading_protocol.ids import Address, TermsId
from lading_protocol.messages import OFFERS, Adverts, WantOffers
from lading_protocol.offers import check_advert
from simulation.node_world import AGENT, COIN, PRICE, Sea


async def told(sea: Sea, node: Node) -> set[Address]:
    """The hosts whose offers a stranger learns from this node."""
    stranger = sea.network.transport(key("stranger"))
    link = await stranger.dial(node.endpoints[0], None)
    messages: MessageStream[Adverts] = MessageStream(await link.open(OFFERS), msgspec.msgpack.Decoder(Adverts))
    messages.send(WantOffers(AGENT))
    answer = await messages.recv()
    assert answer is not None
    await stranger.close()
    return {check_advert(advert, sea.record.settlement_domain, sea.now()).host for advert in answer.adverts}


def test_one_peer_tells_of_the_whole_market() -> None:
    async def main() -> None:
        sea = await Sea.create()
        nodes = [sea.node(name) for name in ("a", "b", "c")]
        tasks = [asyncio.ensure_future(node.run()) for node in nodes]
        for node in nodes:
            await node.started.wait()
        await asyncio.sleep(310)  # offers are published again every five minutes
        everyone = {node.address for node in nodes}
        for node in nodes:
            assert await told(sea, node) == everyone
        for node in nodes:
            node.stop()
        await asyncio.gather(*tasks)

    run_virtual(main())


async def auctioned(sea: Sea) -> tuple[TermsId, int]:
    """Terms of the present epoch, which an auction made, and the second at which they sunset."""
    maker, bidder, auctions = key("maker"), key("curator"), sea.contracts.share_auctions
    await sea.contracts.coin.transfer(key("treasury"), bidder.address, 1000 * COIN)
    await sea.contracts.coin.approve(bidder, auctions.address, 1000 * COIN)
    calendar = await auctions.calendar()
    epoch = calendar.epoch_at(int(sea.now())) + 2
    base = (Party(maker.address, Role.MAKER, 500),)
    id_ = await auctions.open(maker, Lot(AGENT, epoch, Role.CURATOR, 1, 300), base)
    await asyncio.sleep(calendar.commit_starts(epoch) - sea.now() + 1)
    await auctions.commit(bidder, id_, auctions.seal(id_, bidder.address, 200, b"s" * 32))
    await asyncio.sleep(calendar.commit_ends(epoch) - sea.now() + 1)
    await auctions.reveal(bidder, id_, 200, b"s" * 32, base)
    await asyncio.sleep(calendar.start_of(epoch) - sea.now() + 1)
    await auctions.settle(bidder, id_, base)
    terms = await auctions.terms_of(AGENT, epoch)
    assert terms is not None
    return terms, calendar.start_of(epoch + 1)


def test_no_offer_outlives_its_terms() -> None:
    """The operator named terms that an auction made for one epoch: they are offered until a lock could not land."""

    async def main() -> None:
        sea = await Sea.create()
        made, end = await auctioned(sea)
        node = sea.node("host", agents=(Serving(AGENT, made, PRICE, sunset_at=end),))
        task = asyncio.ensure_future(node.run())
        await node.started.wait()
        await asyncio.sleep(2)
        (agent,) = node.agents
        assert agent.offer is not None
        assert agent.offer.offer.expires == end - LANDING_SECONDS
        await asyncio.sleep(end - sea.now() - LANDING_SECONDS + 2)
        assert (agent.state, agent.offer, agent.free) == ("sunset", None, 0)
        assert "sunset at" in " ".join(status.why_not_earning(node))
        assert await told(sea, node) == set()
        node.stop()
        await task

    run_virtual(main())


def test_a_node_that_was_told_no_terms_follows_them() -> None:
    """To what an auction made, and back to the standing table when the epoch is over."""

    async def main() -> None:
        sea = await Sea.create()
        node = sea.node("host", agents=(Serving(AGENT, sea.terms, PRICE, named=False),))
        task = asyncio.ensure_future(node.run())
        await node.started.wait()
        (agent,) = node.agents
        made, end = await auctioned(sea)
        await asyncio.sleep(LOOK_SECONDS + 1)
        assert agent.offer is not None
        assert (agent.offer.terms, agent.offer.offer.expires) == (made, end - LANDING_SECONDS)
        await asyncio.sleep(end - sea.now() + LOOK_SECONDS)
        assert (agent.state, agent.offer.terms) == ("serving", sea.terms)
        assert agent.offer.offer.expires > end
        assert await told(sea, node) == {node.address}
        node.stop()
        await task

    run_virtual(main())
