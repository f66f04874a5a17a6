"""Hears what time it is on other machines, and says in the log when most of them agree that ours is wrong."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from lading.core.clocks import Clocks, Off
from lading_net.errors import NetError
from lading_net.ports import Link
from lading_net.speech import agreed_with
from lading_protocol.ids import Address

log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
ASK_SECONDS = 600.0


class Clockwatch:
    """Made inside a running loop. `clock` gives Unix seconds; `counts` says whose word counts, `least` how many must
    have spoken. `peers` is what they are called."""

    def __init__(self, clock: Callable[[], float], counts: Callable[[Address], bool], least: int, peers: str) -> None:
        self.now = clock
        self._steady = asyncio.get_running_loop().time
        self._clocks = Clocks(counts, least)
        self._peers = peers

    def heard(self, peer: Address, at: int) -> None:
        self._clocks.note(peer, at, self._steady())

    @property
    def off(self) -> Off | None:
        return self._clocks.off(self.now(), self._steady())

    @property
    def words(self) -> str:
        """Empty while nothing is wrong."""
        off = self.off
        return "" if off is None else off.words(self._peers)

    async def ask(self, link: Link) -> None:
        """Asks a peer now and again what time it is, for ever."""
        while True:
            with contextlib.suppress(NetError):
                await agreed_with(link, clock=self)
            await asyncio.sleep(ASK_SECONDS)

    async def run(self, told: Callable[[int], None] = lambda ahead: None) -> None:
        """Looks and says so, for ever; `told` hears by how many seconds, 0 while nothing is wrong."""
        wrong = False
        while True:
            off = self.off
            told(off.ahead if off is not None else 0)
            if off is not None and not wrong:
                log.error("%s", off.words(self._peers))
            elif off is None and wrong:
                log.info("This machine's clock is again what most others' is.")
            wrong = off is not None
            await asyncio.sleep(LOOK_SECONDS)
