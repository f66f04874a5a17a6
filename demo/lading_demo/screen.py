"""What the audience sees: numbered scenes, facts, progress for every wait, and claims that held or did not."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.table import Table

WAIT_SECONDS = 60.0


class Missed(Exception):
    """Something that the demo waited for did not happen in time."""


class Screen:
    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self.failed: list[str] = []
        self.times: list[tuple[str, float]] = []
        self._number = 0
        self._began = time.monotonic()

    @asynccontextmanager
    async def scene(self, title: str) -> AsyncIterator[None]:
        self._number += 1
        start = time.monotonic()
        self.console.print(f"\n[bold cyan]{self._number}[/]  [bold]{title}[/]")
        yield
        self.times.append((title, time.monotonic() - start))

    def fact(self, text: str) -> None:
        self.console.print(f"   {text}", soft_wrap=True)

    def claim(self, text: str, holds: bool) -> None:
        """A point of the demo: shown, and remembered when it does not hold."""
        mark = "[green]✓[/]" if holds else "[bold red]✗[/]"
        self.console.print(f"   {mark} {text}", soft_wrap=True)
        if not holds:
            self.failed.append(text)

    @asynccontextmanager
    async def waiting(self, what: str) -> AsyncIterator[None]:
        """A spinner with the seconds gone, where somebody watches; one line where nobody does."""
        start = time.monotonic()
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(f"{what} …") as status:

            async def tick() -> None:
                while True:
                    await asyncio.sleep(0.5)
                    status.update(f"{what} … {time.monotonic() - start:.0f} s")

            ticking = asyncio.create_task(tick())
            try:
                yield
            finally:
                ticking.cancel()

    async def until(
        self, what: str, ready: Callable[[], Awaitable[bool]], *, limit: float = WAIT_SECONDS, every: float = 0.2
    ) -> None:
        """Raises Missed when `ready` does not come true within `limit` seconds."""
        deadline = time.monotonic() + limit
        async with self.waiting(what):
            while not await ready():
                if time.monotonic() > deadline:
                    raise Missed(f"Waited {limit:.0f} s in vain: {what}.")
                await asyncio.sleep(every)

    def table(self, table: Table) -> None:
        self.console.print(table)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began
