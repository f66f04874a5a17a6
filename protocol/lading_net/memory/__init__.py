"""A whole network in one process: the same ports as the real one, with delay, loss, partitions and deaths on command.

Everything is decided by a seed and the event loop's clock (see `lading_net.clock`). No sockets, no encryption, no wire
format.
"""

from lading_net.memory.gossip import MemoryGossip
from lading_net.memory.network import Conditions, MemoryNetwork
from lading_net.memory.transport import MemoryTransport

__all__ = ["Conditions", "MemoryGossip", "MemoryNetwork", "MemoryTransport"]
