"""What a node's control traffic and memory are at any size of the network: a few measured constants, and the rules
that bound it.

Pure. A node's traffic is what it sends and what it receives, in bytes on the wire, headers included, per second.
"""

from __future__ import annotations

import msgspec

from lading_net.gossip.providing import AGAIN_SECONDS
from lading_node.presence import MAX_HEARD, MOST_LINKS, NOTICE_BYTES, OFFER_BYTES, PUBLISH_SECONDS

HOSTS_PER_COORDINATOR = 100
NOTICE_SECONDS = 30.0
FLOOD = 32  # neighbours who hear at once what a node says itself (core.mesh.Habits)
MOST_NEIGHBOURS = 24  # on average: a node dials 12, and is dialled by as many
AGENTS = 2  # of a node: each has a record of its own
HEADERS = 1.5  # bytes carried for one of an offer that goes to one neighbour: signature, frame, packet, and its receipt


class Constants(msgspec.Struct, frozen=True):
    """`beat`: a link to a coordinator, idle. `gossip`: a connection to a neighbour, idle: there are no more of them
    where there are more hosts. `spread`: bytes carried per byte that reaches a host, in a topic of such `offer`s.
    `record`: bytes carried to tell those who are near to an agent's key that a host serves it."""

    beat: float
    gossip: float
    spread: float
    offer: float
    record: float


class Traffic(msgspec.Struct, frozen=True):
    links: float
    gossip: float
    own: float
    offers: float
    notices: float
    records: float

    @property
    def total(self) -> float:
        return self.links + self.gossip + self.own + self.offers + self.notices + self.records


class Sizes(msgspec.Struct, frozen=True):
    """`host`: without its gossip. `gossip`: without neighbours. `link`: one end of one. `offer`: one that is kept."""

    host: float
    gossip: float
    link: float
    offer: float


class Memory(msgspec.Struct, frozen=True):
    host: float
    gossip: float
    offers: float

    @property
    def total(self) -> float:
        return self.host + self.gossip + self.offers


def traffic(hosts: int, constants: Constants) -> Traffic:
    """Of a node that is linked to as many coordinators as it may be, one for each hundred hosts there are. What comes
    from any peer to any other is sent by one and received by one."""
    coordinators = max(1, hosts // HOSTS_PER_COORDINATOR)
    said = hosts * constants.offer / PUBLISH_SECONDS  # offers, in bytes per second, before anybody's budget
    noticed = coordinators * constants.offer / NOTICE_SECONDS
    return Traffic(
        links=min(coordinators, MOST_LINKS) * constants.beat,
        gossip=min(MOST_NEIGHBOURS, hosts - 1) * constants.gossip,
        own=min(FLOOD, MOST_NEIGHBOURS) * HEADERS * constants.offer / PUBLISH_SECONDS,
        offers=2 * min(said, OFFER_BYTES) * constants.spread,
        notices=2 * min(noticed, NOTICE_BYTES) * constants.spread,
        records=2 * AGENTS * constants.record / AGAIN_SECONDS,
    )


def gossiping(neighbours: float, offers_per_second: float, constants: Constants) -> float:
    """Bytes per second of a host that hears so many offers; what a run of gossip alone is checked against."""
    return neighbours * constants.gossip + 2 * offers_per_second * constants.offer * constants.spread


def memory(hosts: int, sizes: Sizes, links: float = MOST_NEIGHBOURS) -> Memory:
    """Of a light node. It keeps the offers that it hears, up to a limit: among many it hears a sample."""
    neighbours = min(links, hosts - 1)
    return Memory(sizes.host, sizes.gossip + neighbours * sizes.link, min(hosts, MAX_HEARD) * sizes.offer)
