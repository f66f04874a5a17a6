"""A host that asks for nothing: whoever comes is served, also through a gateway that signs with another key."""

import asyncio

import pytest

from factories import key
from lading.dispatch import Payer
from lading_net.clock import run_virtual
from lading_node.agents import Serving
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price
from simulation.node_world import AGENT, Gateway, Sea


@pytest.mark.parametrize("signer", ["gateway", "a session"])
def test_what_costs_nothing_needs_no_paper(signer: str) -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        gateway.payer = Payer(key(signer), key(signer).address, Wei(0))
        endpoint = await gateway.start()
        serving = Serving(AGENT, sea.terms, Price(Wei(0), Wei(0)))
        node = sea.node("host", coordinators=(endpoint,), agents=(serving,))
        running = asyncio.ensure_future(node.run())
        await gateway.offers(1)
        told = await asyncio.gather(*(gateway.ask() for _ in range(3)))
        assert all(ids for _, ids in told)
        assert sum(account.cost for account in gateway.ended) == 0
        node.stop()
        await running

    run_virtual(main())
