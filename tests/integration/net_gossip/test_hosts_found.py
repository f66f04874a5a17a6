"""Kademlia's provider records: who knows one address of anybody finds an agent's hosts, at their direct link."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path

import pytest

from factories import key
from integration.net_gossip.support import ANY_PORT, Hosts, play, until
from integration.net_js.pier import PAYER, pier
from lading.answers import Bill, Delta
from lading.core.options import Options
from lading.dispatch import Purse
from lading.errors import UnknownModel
from lading.routes.peers import PeerRoute
from lading_net.core.kademlia import ADD_PROVIDER, KAD, Contact, Question, encode_question
from lading_net.core.providers import provider_key
from lading_net.direct import DirectLink, DirectSettings, DirectTransport, Relay
from lading_net.errors import DialFailed
from lading_net.gossip import providing
from lading_net.gossip.asking import providers_of
from lading_net.gossip.finding import find_hosts
from lading_net.peer import Endpoint
from lading_net.private import NetworkKey
from lading_protocol.ids import AgentId, to_hex
from simulation.node_world import AGENT

OTHER = AgentId(b"\x07" * 32)
networks = pytest.mark.parametrize("network", [None, NetworkKey(bytes(range(32)))], ids=["public", "private"])


@networks
def test_a_consumer_with_one_address_finds_a_host_by_the_agents_id(tmp_path: Path, network: NetworkKey | None) -> None:
    async def story() -> None:
        async with pier(network, "birch", "cedar", "amber") as (node, sea, wharf):
            birch = wharf.gossips["birch"]
            await until(lambda: len(birch._providers) == 1, "the node's record is with its neighbour")
            wharf.gossips["cedar"].provide([OTHER], ["/ip4/127.0.0.1/tcp/9"])
            transport = DirectTransport(PAYER, DirectSettings(network=network))
            purse = Purse(tmp_path / "purse.sqlite", sea.record.settlement_domain)
            route = PeerRoute(transport, sea.contracts, PAYER, [birch.address], purse)
            options = Options(max_tokens=40, seed=5)
            pieces = [piece async for piece in route.chat(to_hex(AGENT), [("user", "of the sea")], options)]
            bill = pieces[-1]
            assert isinstance(bill, Bill)
            assert bill.hosts == (to_hex(node.address),)
            assert bill.output_tokens > 0
            assert any(isinstance(piece, Delta) for piece in pieces)
            assert [link.seen_at for link in transport._links[node.address]] == [
                ("127.0.0.1", Endpoint.parse(node.endpoints[0]).port)
            ]
            with pytest.raises(UnknownModel):  # its provider is known, and nothing is there
                await route._find(to_hex(OTHER), "chat")
            await transport.close()
            purse.close()

    asyncio.run(story())


@networks
def test_a_home_that_can_only_be_called_through_a_relay_is_found_too(
    tmp_path: Path, network: NetworkKey | None
) -> None:
    async def story() -> None:
        async with pier(network, "birch", "cedar", "amber") as (node, sea, wharf):
            birch, middle = wharf.gossips["birch"], wharf.transport(key("middle"))
            where = await middle.listen(ANY_PORT)
            relay = Relay(middle, lambda: (where,), time.time)
            relay.open()
            home = next(one for one in wharf.transports if one.address == node.address)
            link = await home.dial(where)
            assert isinstance(link, DirectLink)
            (way,) = (await home.reserve(link)).endpoints
            wharf.gossips["amber"].provide([AGENT], [way])

            def known() -> list[tuple[str, ...]]:
                return [one.texts for one in birch._providers.of(provider_key(AGENT), birch._now())]

            await until(lambda: known() == [(way,)], "the record names the relay only")
            transport = DirectTransport(PAYER, DirectSettings(network=network))
            with closing(Purse(tmp_path / "purse.sqlite", sea.record.settlement_domain)) as purse:
                route = PeerRoute(transport, sea.contracts, PAYER, [birch.address], purse)
                assert (await route._find(to_hex(AGENT), "chat")).host == node.address
                assert [one.relayed for one in transport._links[node.address]] == [True]
                assert relay.carried > 0
                pieces = [piece async for piece in route.chat(to_hex(AGENT), [("user", "of the sea")], Options())]
            assert isinstance(pieces[-1], Bill)
            await transport.close()

    asyncio.run(story())


def test_records_lead_through_those_who_know_others_and_follow_what_is_provided() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("first")
        others = [await hosts.up(f"host {number}", first.address) for number in range(12)]
        far, place = others[-1], "/ip4/203.0.113.7/tcp/4101"
        relayed = f"/dns4/relay.example.org/tcp/4101/p2p/{first.peer_id}/p2p-circuit/p2p/{far.peer_id}"
        far.provide([AGENT], [place, relayed])
        asker = DirectTransport(key("asker"))

        async def found(agent: AgentId) -> list[tuple[str, ...]]:
            return [one.texts for one in await find_hosts(asker, [first.address], agent)]

        await until(lambda: sum(len(one._providers) for one in others) > 3, "many hold the record")
        assert await found(AGENT) == [(f"{place}/p2p/{far.peer_id}", relayed)]
        assert await found(OTHER) == []
        far.provide([AGENT, OTHER], ["/ip4/203.0.113.8/tcp/4101"])
        await until(lambda: any(len(one._providers) == 2 for one in others[:-1]), "the other agent is told of")
        assert await found(OTHER) == [(f"/ip4/203.0.113.8/tcp/4101/p2p/{far.peer_id}",)]
        assert asker.links() == []  # it asked under another name
        await asker.close()

    play(scenario)


def test_nobody_speaks_for_others_and_a_dead_address_is_said_to_be_one() -> None:
    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("first")
        liar = DirectTransport(key("liar"))
        link = await liar.dial(first.address)
        stream = await link.open(KAD)
        victim = Contact(hosts.make("victim").peer_id, (Endpoint("ip4", "203.0.113.9", 1),))
        mine = Contact(liar.peer_id, (Endpoint("ip4", "203.0.113.9", 2),))
        stream.write(encode_question(Question(ADD_PROVIDER, provider_key(AGENT), (victim, mine))))
        await until(lambda: len(first._providers) == 1, "its own record is kept")
        providers, _ = await providers_of(link, provider_key(AGENT))
        assert [one.peer for one in providers] == [liar.peer_id]
        await liar.close()
        asker = DirectTransport(key("asker"))
        with pytest.raises(DialFailed, match="Nobody who is known"):
            await find_hosts(asker, [f"/ip4/127.0.0.1/tcp/9/p2p/{first.peer_id}"], AGENT)
        await asker.close()

    play(scenario)


def test_what_is_new_is_told_again_to_those_who_came_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providing, "SOON_SECONDS", (1.0, 1.0, 1.0, 1.0))

    async def scenario(hosts: Hosts) -> None:
        first = await hosts.up("first")
        far = await hosts.up("far", first.address)
        far.provide([AGENT], ["/ip4/203.0.113.7/tcp/4101"])
        await until(lambda: len(first._providers) == 1, "the first one holds the record")
        later = [await hosts.up(f"later {number}", first.address) for number in range(4)]
        await until(lambda: all(len(one._providers) == 1 for one in later), "and all others soon")

    play(scenario)
