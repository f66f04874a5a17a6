"""Jobs that were stopped for others and wait for a slot: the oldest of an agent is first, and only it looks for one."""

import asyncio
from bisect import insort
from collections.abc import Callable
from typing import TypeVar

from lading_protocol.ids import AgentId

T = TypeVar("T")
LOOK_SECONDS = 0.25


class Line:
    """`since` of a job is when it began, so that one which was stopped again stands where it stood."""

    def __init__(self) -> None:
        self._waiting: dict[AgentId, list[tuple[float, int]]] = {}
        self._number = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    async def wait(self, agent: AgentId, since: float, look: Callable[[], T | None], patience: float) -> T | None:
        """What `look` finds once it is this job's turn; None after `patience` seconds."""
        self._number += 1
        ticket = (since, self._number)
        line = self._waiting.setdefault(agent, [])
        insort(line, ticket)
        try:
            async with asyncio.timeout(patience):
                while True:
                    if line[0] == ticket and (found := look()) is not None:
                        return found
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            return None
        finally:
            line.remove(ticket)
            if not line:
                self._waiting.pop(agent, None)
