"""The agents of the node and the tasks that run them; they come and go while the node runs.

Which agents those are is decided elsewhere: by the operator, and by the publishers whose releases are followed.
"""

import asyncio
from collections.abc import Callable, Iterable

from lading_node.agents import Agent, Serving
from lading_node.ports import Doors, Package
from lading_protocol.ids import AgentId

GIVEN_UP = frozenset({"withdrawn", "stopped"})


class Fleet:
    """`agents` is the same list all the time. Every change of an agent's offer is told to the watchers, and to others
    when an agent fills up or has room again."""

    def __init__(self, doors: Doors, servings: Iterable[Serving], endpoints: Callable[[], tuple[str, ...]]) -> None:
        self.agents: list[Agent] = []
        self._doors = doors
        self._endpoints = endpoints
        self._watchers: list[Callable[[], None]] = []
        self._room_watchers: list[Callable[[], None]] = []
        self._tasks: dict[Agent, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        for serving in servings:
            self.add(serving)

    async def run(self) -> None:
        """Until cancelled; the engines are stopped then."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for agent in self.agents:
                self._start(agent)
            await asyncio.Event().wait()

    def watch(self, callback: Callable[[], None]) -> None:
        self._watchers.append(callback)

    def watch_room(self, callback: Callable[[], None]) -> None:
        self._room_watchers.append(callback)

    def find(self, agent: AgentId) -> Agent | None:
        return next((one for one in self.agents if one.serving.agent == agent), None)

    def add(self, serving: Serving, package: Package | None = None) -> Agent:
        """Serve one more. `package` is it, where it was had already."""
        agent = Agent(serving, self._doors, self._endpoints, package)
        agent.on_change(self._tell)
        agent.on_fill(self._tell_room)
        self.agents.append(agent)
        self._start(agent)
        return agent

    async def settled(self, agent: Agent) -> bool:
        """Wait until it serves (True), or is given up."""
        changed = asyncio.Event()
        agent.on_change(changed.set)
        while agent.state != "serving":
            if agent.retired or agent.state in GIVEN_UP:
                return False
            changed.clear()
            await changed.wait()
        return True

    def retire(self, agent: Agent, state: str, why: str, *, keep: bool = False) -> None:
        """Its offer goes away now, its engine when the last running job has ended. `keep` leaves it in the list, for
        people to read why."""
        agent.retire(state, why)
        if self._group is None:
            if not keep:
                self.agents.remove(agent)
            return
        self._group.create_task(self._let_go(agent, keep))

    async def _let_go(self, agent: Agent, keep: bool) -> None:
        await agent.idle.wait()
        task = self._tasks.pop(agent, None)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
        if not keep and agent in self.agents:
            self.agents.remove(agent)
        if all(one is agent or one.serving.agent != agent.serving.agent for one in self.agents):
            self._doors.packages.release(agent.serving.agent)
        self._tell()

    def _start(self, agent: Agent) -> None:
        if self._group is not None and not agent.retired:
            self._tasks[agent] = self._group.create_task(agent.run())

    def _tell(self) -> None:
        for callback in self._watchers:
            callback()

    def _tell_room(self) -> None:
        for callback in self._room_watchers:
            callback()
