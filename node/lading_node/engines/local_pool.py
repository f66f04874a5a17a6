"""A cluster in one process, on this machine: its machines are real placements whose engines are real processes.

For tests of everything but Ray, and for trying a pool out. `lose` and `restart` are what a cable and a reset do.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from lading_node.engines.pool import Found, Heard, Lost, News
from lading_node.engines.ray_actor import Placement, Study, study_machine


class LocalPool:
    """Machines by name, each with the resources that are granted to it; `study` looks at each one."""

    def __init__(
        self,
        folder: Path,
        machines: Mapping[str, dict[str, float]],
        study: Study = study_machine,
    ) -> None:
        self._study = study
        self._folder = folder
        self._granted = dict(machines)
        self._placed: dict[str, Placement] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._news: asyncio.Queue[News] = asyncio.Queue()
        self._cut: set[str] = set()

    async def open(self) -> None:
        for name in self._granted:
            self._start(name)

    async def news(self) -> AsyncIterator[News]:
        while True:
            yield await self._news.get()

    async def say(self, machine: str, data: bytes) -> None:
        if machine not in self._cut:
            await self._placed[machine].say(data)

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.gather(*(placed.close() for placed in self._placed.values()))

    def cut(self, machine: str) -> None:
        """The cable is pulled: nothing gets there or comes from there, and nobody says so."""
        self._cut.add(machine)

    def mend(self, machine: str) -> None:
        self._cut.discard(machine)

    def join(self, machine: str, granted: dict[str, float]) -> None:
        """One more machine."""
        self._granted[machine] = granted
        self._start(machine)

    async def restart(self, machine: str) -> None:
        """The machine's program is killed and starts anew."""
        self._tasks.pop(machine).cancel()
        self._news.put_nowait(Lost(machine, "The machine's program was killed."))
        await self._placed.pop(machine).close()
        self._start(machine)

    def _start(self, name: str) -> None:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        self._placed[name] = Placement(str(folder), self._study)
        self._news.put_nowait(Found(name, self._granted[name]))
        self._tasks[name] = asyncio.ensure_future(self._hear(name, self._placed[name]))

    async def _hear(self, name: str, placed: Placement) -> None:
        while True:
            data = await placed.hear(0)
            if name not in self._cut:
                self._news.put_nowait(Heard(name, data))
