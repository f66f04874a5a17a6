"""The control plane over py-libp2p: identity, discovery from a bootstrap list, and gossip, behind the Gossip port.

The library is heavy and speaks trio only, so it is imported and runs in a thread of its own; only
`host`, `pubsub`, `discovery` and `watch` import it, and nothing outside this package knows.
"""

from lading_net.libp2p.gossip import Libp2pGossip

__all__ = ["Libp2pGossip"]
