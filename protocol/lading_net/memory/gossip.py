"""Gossip in memory: every publication reaches every other peer that can be reached, late or never as its path says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from lading_net.errors import LinkClosed, MessageTooLarge
from lading_net.ports import Address
from lading_net.subscription import MAX_GOSSIP_BYTES, Subscription, Subscriptions
from lading_protocol.ids import AgentId

if TYPE_CHECKING:
    from lading_net.memory.network import MemoryNetwork


class MemoryGossip:
    """One peer's Gossip port; made by MemoryNetwork.gossip()."""

    def __init__(self, network: MemoryNetwork, address: Address) -> None:
        self._network = network
        self.address = address
        self._readers = Subscriptions()
        self._closed = False
        self.provided: dict[AgentId, tuple[str, ...]] = {}  # in memory nobody asks for it but tests

    async def publish(self, topic: str, data: bytes) -> None:
        if self._closed:
            raise LinkClosed("This peer has left the gossip network.")
        if len(data) > MAX_GOSSIP_BYTES:
            raise MessageTooLarge(f"{len(data)} bytes are too many for gossip; the limit is {MAX_GOSSIP_BYTES}.")
        now = self._network.loop.time()
        for other in self._network.gossips():
            if other is self:
                continue
            path = self._network.path(self.address, other.address)
            if path.open and not path.gossip_lost():
                self._network.loop.call_at(now + path.late(), other.receive, self.address, topic, bytes(data))

    def subscribe(self, topic: str) -> Subscription:
        return self._readers.add(topic)

    def leave(self, topic: str) -> None:
        self._readers.leave(topic)

    def peers(self) -> list[Address]:
        if self._closed:
            return []
        others = (other.address for other in self._network.gossips() if other is not self)
        return [address for address in others if self._network.reachable(self.address, address)]

    def provide(self, agents: Collection[AgentId], endpoints: Sequence[str]) -> None:
        self.provided = {agent: tuple(endpoints) for agent in agents}

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        self._closed = True
        self._readers.close()
        self._network.forget_gossip(self)

    def receive(self, sender: Address, topic: str, data: bytes) -> None:
        """An advert arrives, unless a partition came between meanwhile."""
        if self._network.reachable(self.address, sender):
            self._readers.feed(topic, data)
