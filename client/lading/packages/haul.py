"""Brings the chunks of several files in from many peers at once. Which peer is asked for what is core.swarm's decision.

One task per peer keeps asks under way on one stream, so that no round trip is waited for; what arrived is proved and
written by threads meanwhile, two chunks a peer at most, so that memory is bounded by the peers and not by the files.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from lading.core.swarm import Rules, Swarm, Wanted
from lading.errors import NoSource
from lading.packages.partial import Partial, Pieces
from lading.packages.whole import Links
from lading.packages.wire import Parts
from lading_net.errors import NetError
from lading_net.ports import Link
from lading_protocol.ids import digest, short
from lading_protocol.messages import BLOB, BLOB_PART, NoBlob
from lading_protocol.parts import CHUNK_SIZE

log = logging.getLogger(__name__)
MOST_PEERS = 16
_TICK_SECONDS = 0.25
_PROVING = 2  # chunks of one peer


class Haul:
    """Fetches what `partials` lack from the peers that `links` names, also those that it names later.

    `landed` hears the bytes of every chunk that was proved and written.
    """

    def __init__(
        self, partials: Sequence[Partial], links: Links, landed: Callable[[int], None], rules: Rules | None = None
    ) -> None:
        self._chunks = [(partial, index) for partial in partials for index in partial.lacking()]
        self._left = {id(partial): len(partial.lacking()) for partial in partials}
        self._swarm = Swarm(
            [Wanted(digest(partial.file.digest), partial.length(index)) for partial, index in self._chunks], rules
        )
        self._links = links
        self._landed = landed
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._tried: set[Link] = set()
        self._running: dict[asyncio.Task[None], Link] = {}
        self._over: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Raises NoSource when no peer is left that gives what is missing, StoreFull, BadPackage."""
        if not self._swarm.left:
            return
        try:
            while not self._over.done():
                self._enlist()
                if not self._running:
                    raise NoSource(f"{self._what_is_missing()} ({self._why()}).")
                await asyncio.wait(
                    (self._over, *self._running), timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                self._reap()
                for late in self._swarm.tick(self._loop.time()):
                    log.info("peer %s is given up: %s", _name(late.peer), late.reason)
                    self._dismiss(late.peer)
                self._stir()
            self._over.result()
        finally:
            if self._over.done() and not self._over.cancelled():
                self._over.exception()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    # -- peers

    def _enlist(self) -> None:
        for link in self._links():
            if len(self._running) >= MOST_PEERS:
                return
            if link in self._tried or link.closed.is_set() or not self._swarm.join(link.peer, self._loop.time()):
                continue
            self._tried.add(link)
            self._running[self._loop.create_task(self._work(link))] = link

    def _reap(self) -> None:
        for task in [task for task in self._running if task.done()]:
            link = self._running.pop(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
            self._swarm.leave(link.peer, "it was given up")

    def _dismiss(self, peer: object) -> None:
        for task, link in self._running.items():
            if link.peer == peer:
                task.cancel()

    def _stir(self) -> None:
        """Idle peers look again for something to do."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _what_is_missing(self) -> str:
        partials = {id(partial): partial for partial, _ in self._chunks if self._left[id(partial)]}
        first = next(iter(partials.values()))
        more = f" and {len(partials) - 1} more files" if len(partials) > 1 else ""
        return f"{self._left[id(first)]:,} chunks of {first.file.path}{more} cannot be had"

    def _why(self) -> str:
        said = [f"{_name(peer)}: {reason.rstrip('.')}" for peer, reason in self._swarm.reasons.items()]
        return "; ".join(said) or "no peer is linked yet"

    # -- one peer

    async def _work(self, link: Link) -> None:
        proving: deque[asyncio.Task[bool]] = deque()
        try:
            stream = await link.open(BLOB)
            try:
                await self._draw(link, Parts(stream, lambda: self._swarm.heard(link.peer, self._loop.time())), proving)
            finally:
                stream.reset()
                self._stir()
        except NetError as error:
            self._swarm.leave(link.peer, error.message)
        finally:
            await asyncio.gather(*proving, return_exceptions=True)

    async def _draw(self, link: Link, parts: Parts, proving: deque[asyncio.Task[bool]]) -> None:
        """Keeps asking until nothing is left to ask this peer for."""
        swarm, peer, asked = self._swarm, link.peer, deque[int]()
        while swarm.left and peer in swarm:
            for number in swarm.ask(peer, self._loop.time()):
                self._ask(parts, number)
                asked.append(number)
            if not asked:
                if swarm.lacks_all(peer):
                    swarm.leave(peer, "it does not hold it")
                else:
                    await self._changed.wait()
                continue
            number = asked.popleft()
            pieces = await self._receive(parts, number)
            if pieces is None:
                swarm.absent(peer)
                self._stir()
                continue
            swarm.sent(peer, self._loop.time())
            while len(proving) >= _PROVING:
                await proving.popleft()
            if swarm.needs(number):
                proving.append(self._loop.create_task(self._prove(link, number, pieces)))
        while proving:
            await proving.popleft()

    def _ask(self, parts: Parts, number: int) -> None:
        partial, index = self._chunks[number]
        blob, start = digest(partial.file.digest), index * CHUNK_SIZE
        end = start + partial.length(index)
        for offset in range(start, end, BLOB_PART):
            parts.ask(blob, offset, min(BLOB_PART, end - offset))

    async def _receive(self, parts: Parts, number: int) -> Pieces | None:
        """The pieces of a chunk, of the length asked; None when the peer does not hold the blob."""
        partial, index = self._chunks[number]
        missing = partial.length(index)
        pieces: list[bytes | memoryview] = []
        absent = False
        while missing > 0:
            length = min(BLOB_PART, missing)
            part = await parts.next()
            missing -= length
            if isinstance(part, NoBlob):
                absent = True
            else:
                pieces += part.pieces  # of another length than asked, they do not have the chunk's hash
        return None if absent else pieces

    async def _prove(self, link: Link, number: int, pieces: Pieces) -> bool:
        partial, index = self._chunks[number]
        try:
            right = await self._loop.run_in_executor(None, partial.write, index, pieces)
            if right and self._swarm.accept(number):
                self._count(partial, index)
            elif not right:
                reason = f"it sent a wrong chunk {index} of {partial.file.path}"
                log.warning("peer %s is given up: %s", _name(link.peer), reason)
                self._swarm.refuse(number, link.peer, reason)
                self._dismiss(link.peer)
                self._stir()
        except asyncio.CancelledError:
            self._swarm.back(number)
            raise
        except Exception as error:
            self._fail(error)
            return False
        return right

    def _count(self, partial: Partial, index: int) -> None:
        self._landed(partial.length(index))
        self._left[id(partial)] -= 1
        if not self._swarm.left and not self._over.done():
            self._over.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._over.done():
            self._over.set_exception(error)


def _name(peer: object) -> str:
    return short(peer) if isinstance(peer, bytes) else str(peer)
