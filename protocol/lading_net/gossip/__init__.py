"""The control plane: gossipsub 1.1 and Kademlia, as libp2p speaks them, over links of our own on asyncio.

What is said is decided in `lading_net.core` (`mesh`, `rpc`, `kademlia`); here are the streams that carry it.
"""

from lading_net.gossip.host import MeshGossip

__all__ = ["MeshGossip"]
