"""Any one host knows the market: a client without a coordinator asks a single peer and learns of all."""

import asyncio

import msgspec

from factories import key
from lading_net.clock import run_virtual
from lading_net.messages import MessageStream
from lading_node.node import Node
from lading_protocol.ids import Address
from lading_protocol.messages import OFFERS, Adverts, WantOffers
from lading_protocol.offers import check_advert
from simulation.node_world import AGENT, Sea


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
