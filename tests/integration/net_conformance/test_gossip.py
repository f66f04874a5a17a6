"""Gossip over loopback keeps the contract of every gossip."""

from __future__ import annotations

from integration.net_gossip.support import Hosts, play, until
from unit.net_conformance.gossip_contract import NAMES, GossipContract, Scenario


class TestMeshGossip(GossipContract):
    def run(self, scenario: Scenario) -> None:
        async def main(hosts: Hosts) -> None:
            first = await hosts.up(NAMES[0])
            peers = [first, *[await hosts.up(name, first.address) for name in NAMES[1:]]]
            await until(lambda: all(len(one.peers()) == len(NAMES) - 1 for one in peers), "all know all")
            await scenario(peers)

        play(main)
