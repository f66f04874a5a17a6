"""What a node's control traffic is at any size of the network: a few measured constants, and the rules that bound it.

Pure. Bytes are those on the wire, both ways, headers included; rates are per second and node.
"""

from __future__ import annotations

import msgspec

from lading_node.presence import MOST_LINKS, NOTICE_BYTES, OFFER_BYTES, PUBLISH_SECONDS

HOSTS_PER_COORDINATOR = 100
NOTICE_SECONDS = 30.0
MOST_NEIGHBOURS = 8  # of a mesh; an offer to one of them costs about twice its size


class Constants(msgspec.Struct, frozen=True):
    """`beat`: a link to a coordinator, idle. `gossip`: all of the gossip's connections, idle: a host talks to its mesh,
    which grows no further. `spread`: bytes carried per byte that reaches a host, in a topic of `offer` bytes each."""

    beat: float
    gossip: float
    spread: float
    offer: float


class Traffic(msgspec.Struct, frozen=True):
    links: float
    gossip: float
    own: float
    offers: float
    notices: float

    @property
    def total(self) -> float:
        return self.links + self.gossip + self.own + self.offers + self.notices


def traffic(hosts: int, constants: Constants) -> Traffic:
    """Of a node that is linked to as many coordinators as it may be, one for each hundred hosts there are."""
    coordinators = max(1, hosts // HOSTS_PER_COORDINATOR)
    said = hosts * constants.offer / PUBLISH_SECONDS  # offers, in bytes per second, before anybody's budget
    noticed = coordinators * constants.offer / NOTICE_SECONDS
    return Traffic(
        links=min(coordinators, MOST_LINKS) * constants.beat,
        gossip=constants.gossip,
        own=MOST_NEIGHBOURS * 2 * constants.offer / PUBLISH_SECONDS,
        offers=min(said, OFFER_BYTES) * constants.spread,
        notices=min(noticed, NOTICE_BYTES) * constants.spread,
    )
