"""The weather between peers: who reaches whom, how late, how much is lost, what breaks and who dies.

Owns every fault of a simulation and the randomness behind it. Streams and handlers are the business of `link` and
`transport`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from lading_net.memory.gossip import MemoryGossip
from lading_net.memory.link import MemoryLink
from lading_net.memory.transport import MemoryTransport
from lading_net.peer import PeerId
from lading_net.ports import Address
from lading_protocol.keys import address_of

ANY = "0.0.0.0"


class Identity(Protocol):
    """What a peer is known by; `lading_protocol.keys.PrivateKey` is one."""

    @property
    def public_key(self) -> bytes: ...


class Conditions(msgspec.Struct, frozen=True):
    """What a path does to traffic. Seconds one way, bytes per second (0: unbounded), chances from 0 to 1.

    `loss` is the chance that a write breaks the link under it (a stream is reliable or gone), `gossip_loss` that an
    advert vanishes.
    """

    delay: float = 0.0
    jitter: float = 0.0
    bandwidth: float = 0.0
    loss: float = 0.0
    gossip_loss: float = 0.0


class Path:
    """The way between two peers, the same in both directions."""

    __slots__ = ("_fragments", "_rng", "conditions", "loop", "open")

    def __init__(self, conditions: Conditions, rng: random.Random, fragments: bool) -> None:
        self.conditions = conditions
        self.loop = asyncio.get_running_loop()
        self.open = True
        self._rng = rng
        self._fragments = fragments

    def late(self) -> float:
        now = self.conditions
        return now.delay + (self._rng.random() * now.jitter if now.jitter else 0.0)

    def arrival(self, now: float, last: float, size: int) -> float:
        """When `size` bytes sent now arrive, behind what arrives at `last`."""
        bandwidth = self.conditions.bandwidth
        when = max(now + self.late(), last)
        return when + size / bandwidth if bandwidth else when

    def lost(self) -> bool:
        loss = self.conditions.loss
        return bool(loss) and self._rng.random() < loss

    def gossip_lost(self) -> bool:
        loss = self.conditions.gossip_loss
        return bool(loss) and self._rng.random() < loss

    def fragment(self, size: int) -> int:
        """How much of `size` waiting bytes one read returns: all, or a random part when the network fragments."""
        return self._rng.randint(1, size) if self._fragments else size


class MemoryNetwork:
    """Make one inside a running loop, then ask it for each peer's ports.

    `silence` is after how many seconds without a sign of life a peer counts as dead; `fragments` makes every read
    return a random piece, so that no reader may count on message boundaries.
    """

    def __init__(
        self, seed: int = 0, conditions: Conditions | None = None, *, silence: float = 30.0, fragments: bool = False
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.default = conditions or Conditions()
        self.silence = silence
        self._rng = random.Random(seed)
        self._fragments = fragments
        self._paths: dict[tuple[Address, Address], Path] = {}
        self._groups: dict[Address, int] = {}
        self._mute: dict[Address, None] = {}
        self._transports: dict[Address, MemoryTransport] = {}
        self._gossips: dict[Address, MemoryGossip] = {}
        self._listeners: dict[tuple[str, int], MemoryTransport] = {}
        self._ports = itertools.count(40_000)

    # Peers

    def transport(self, who: Identity) -> MemoryTransport:
        """A fresh transport; the peer's earlier one, if any, should have been closed or killed."""
        transport = MemoryTransport(self, PeerId.from_public_key(who.public_key))
        address = transport.address
        self._transports[address] = transport
        if address in self._mute:
            del self._mute[address]
            self._settle()
        return transport

    def gossip(self, who: Identity) -> MemoryGossip:
        gossip = MemoryGossip(self, address_of(who.public_key))
        self._gossips[gossip.address] = gossip
        return gossip

    def gossips(self) -> Iterator[MemoryGossip]:
        yield from list(self._gossips.values())

    # Conditions

    def path(self, a: Address, b: Address) -> Path:
        key = (a, b) if a < b else (b, a)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = Path(self.default, self._rng, self._fragments)
            path.open = self._connected(a, b)
        return path

    def shape(self, a: Address, b: Address, conditions: Conditions) -> None:
        """Conditions of one pair of peers, from now on, for the links they have too."""
        self.path(a, b).conditions = conditions

    # Faults

    def partition(self, *groups: Iterable[Address]) -> None:
        """Cuts the groups off from each other; peers in no group form one more. Replaces an earlier partition.

        Traffic between groups waits. A link that is not healed within `silence` seconds breaks at both ends.
        """
        self._groups = {address: number for number, group in enumerate(groups) for address in group}
        self._settle()

    def heal(self) -> None:
        """Ends the partition; what waited arrives now."""
        self.partition()

    def sever(self, a: Address, b: Address) -> None:
        """Breaks the link between two peers at both ends, once; they may dial again."""
        transport = self._transports.get(a)
        link = transport.link_to(b) if transport is not None else None
        if link is not None:
            link.sever("The connection broke.")

    def kill(self, address: Address, *, silently: bool = False) -> None:
        """The peer's process dies, and its ports with it; its tasks are the caller's to cancel.

        Others see its links close after what it had sent, or, if it vanishes `silently` as a machine that loses power
        does, break after `silence` seconds. Ask for a new transport to bring the peer back.
        """
        gossip = self._gossips.pop(address, None)
        if gossip is not None:
            gossip.stop()
        transport = self._transports.pop(address, None)
        if silently:
            self._mute[address] = None
            self._settle()
        if transport is not None:
            transport.kill()

    # For the peers

    def reachable(self, a: Address, b: Address) -> bool:
        return self.path(a, b).open

    def free_port(self) -> int:
        return next(self._ports)

    def bind(self, host: str, port: int, owner: MemoryTransport) -> bool:
        """False if the port is taken."""
        taken = (port == other and (host == place or ANY in (host, place)) for place, other in self._listeners)
        if any(taken):
            return False
        self._listeners[host, port] = owner
        return True

    def listener(self, host: str, port: int) -> MemoryTransport | None:
        return self._listeners.get((host, port)) or self._listeners.get((ANY, port))

    def forget(self, transport: MemoryTransport) -> None:
        if self._transports.get(transport.address) is transport:
            del self._transports[transport.address]
        for key in [key for key, owner in self._listeners.items() if owner is transport]:
            del self._listeners[key]

    def forget_gossip(self, gossip: MemoryGossip) -> None:
        if self._gossips.get(gossip.address) is gossip:
            del self._gossips[gossip.address]

    def _connected(self, a: Address, b: Address) -> bool:
        if a in self._mute or b in self._mute:
            return False
        return self._groups.get(a) == self._groups.get(b)

    def _settle(self) -> None:
        """Brings every path in line with the partition, and starts the clock on links that fell silent."""
        for (a, b), path in self._paths.items():
            path.open = self._connected(a, b)
        for link in self._links():
            if link.path.open:
                link.release()
            else:
                link.hold(self.silence)

    def _links(self) -> Iterator[MemoryLink]:
        for transport in list(self._transports.values()):
            yield from transport.live_links()
