"""Listening to a gossip topic within a budget: a small network is heard whole, of a large one a sample.

Leaves the topic when more comes than is wanted, for as long as evens it out. Knows nothing of what is said.
"""

import asyncio
from collections.abc import AsyncIterator

from lading_net.ports import Gossip

BURST = 16 * 1024
"""Bytes that are heard before the budget counts, so that a newcomer learns enough at once."""


async def sample(gossip: Gossip, topic: str, budget: float) -> AsyncIterator[bytes]:
    """What is published, at most `budget` bytes per second over time; ends when the port closes."""
    clock = asyncio.get_running_loop().time
    while True:
        began, heard = clock(), 0
        async for data in gossip.subscribe(topic):
            yield data
            heard += len(data)
            if heard > BURST and heard > budget * (clock() - began):
                break
        else:
            return
        gossip.leave(topic)
        await asyncio.sleep(heard / budget - (clock() - began))
