"""What is heard of other coordinators: their summaries, agents that only they have, and offers that they quote.

Whom to believe is lading.core.atlas's business, asking them lading.dispatch.scout's.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from prometheus_client import Gauge

from lading.core.atlas import POINTS_IN_VAIN, Atlas, Shelf
from lading.dispatch import Directory
from lading.dispatch.scout import Scout
from lading_coordinator.agents import Agents
from lading_coordinator.standing import Standing
from lading_net.dialling import dial_any
from lading_net.ports import Gossip, Transport
from lading_protocol.eip712 import Domain
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, short
from lading_protocol.offers import KnownOffer
from lading_protocol.summaries import TOPIC_SUMMARIES, Summary, check_summary, read_ad

log = logging.getLogger(__name__)
_summary = msgspec.msgpack.Decoder(Summary)
TURN_SECONDS: Final = 1.0
CHECK_SECONDS: Final = 1.0
DIAL_SECONDS: Final = 3.0
# A manifest that a coordinator did not have is asked of it again after so long.
LEARN_SECONDS: Final = 60.0
MOST_LEARNING: Final = 4
# Hosts of one answer that are looked up on the chain; the others are when they are quoted again.
MOST_STRANGERS: Final = 128


class Hearing:
    """`clock` gives Unix seconds, `summed` shows how much of others is known. `news` hears each new summary."""

    def __init__(
        self,
        transport: Transport,
        directory: Directory,
        atlas: Atlas,
        agents: Agents,
        standing: Standing,
        domain: Domain,
        clock: Callable[[], float],
        summed: Gauge,
    ) -> None:
        self._summed = summed
        self._transport = transport
        self._directory = directory
        self._atlas = atlas
        self._agents = agents
        self._standing = standing
        self._domain = domain
        self._clock = clock
        self._asked: dict[tuple[AgentId, Address], float] = {}
        self._learning: set[asyncio.Task[None]] = set()
        self.news: Callable[[bytes], None] = lambda summary: None
        self.scout = Scout(transport, directory, atlas, domain, clock, self.admit)

    async def listen(self, gossip: Gossip) -> None:
        """Takes in the summaries that everyone publishes, until the gossip ends."""
        async for data in gossip.subscribe(TOPIC_SUMMARIES):
            if self.take(data):
                self.news(data)

    def take(self, data: bytes) -> bool:
        """Whether it was news."""
        try:
            return self._take(data)
        except (LadingError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.debug("A summary is refused: %s", error)
            return False

    def _take(self, data: bytes) -> bool:
        summary, now = _summary.decode(data), self._clock()
        ad = read_ad(summary)
        # A signature costs more to check than a number to compare.
        if not self._atlas.wants(ad.coordinator, ad.sequence, summary.detail.page, now):
            return False
        kept = self._atlas.put(check_summary(summary, self._domain, now), now)
        if kept:
            self.scout.heard(ad.coordinator)
        return kept

    async def tend(self) -> None:
        """Forgets, looks around and gets to know what only others have, for ever."""
        try:
            while True:
                await asyncio.sleep(TURN_SECONDS)
                self._atlas.prune(self._clock())
                self._summed.set(self._atlas.size)
                self.scout.look_around()
                self._learn()
        finally:
            for task in self._learning:
                task.cancel()
            await asyncio.gather(*self._learning, return_exceptions=True)
            await self.scout.close()

    # Agents

    def _learn(self) -> None:
        """The manifest of one agent that is not in the catalogue, from a coordinator that says it has hosts."""
        if len(self._learning) >= MOST_LEARNING:
            return
        now = self._clock()
        self._asked = {asked: at for asked, at in self._asked.items() if 0 <= now - at < LEARN_SECONDS}
        for agent in self._atlas.agents():
            if self._agents.knows(agent):
                continue
            shelves = self._atlas.shelves(agent, now)
            new = [shelf for shelf in shelves if (agent, shelf.coordinator.address) not in self._asked]
            if new:
                best = max(new, key=lambda one: (one.coordinator.proved, one.hosts))
                self._asked[agent, best.coordinator.address] = now
                task = asyncio.ensure_future(self._learn_from(agent, best))
                self._learning.add(task)
                task.add_done_callback(self._learning.discard)
                return

    async def _learn_from(self, agent: AgentId, shelf: Shelf) -> None:
        voice = shelf.coordinator
        try:
            link = await dial_any(self._transport, voice.endpoints, voice.address, DIAL_SECONDS)
            await self._agents.learn(agent, voice.address, link)
        except LadingError as error:
            log.info("Coordinator %s does not answer: %s", short(voice.address), error)
        if not self._agents.knows(agent):
            self._atlas.in_vain(voice.address, self._clock(), POINTS_IN_VAIN)

    # Quotes

    async def admit(self, offers: Sequence[KnownOffer]) -> list[KnownOffer]:
        """Those under agreed terms, of hosts that have a stake. Of one answer only some new hosts are looked up."""
        found = []
        hosts = list(dict.fromkeys(known.host for known in offers))
        strangers = [host for host in hosts if not self._directory.quotes(host)]
        late = set(strangers[MOST_STRANGERS:])
        hosts = [host for host in hosts if host not in late]
        good = dict(zip(hosts, await asyncio.gather(*map(self._looked_up, hosts)), strict=True))
        for known in offers:
            if good.get(known.host) and await self._agents.sold_under(known.agent, known.terms):
                self._directory.sunset(known.terms, self._agents.sunset_of(known.agent, known.terms))
                found.append(known)
        return found

    async def _looked_up(self, host: Address) -> bool:
        if not self._directory.quotes(host):
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._standing.check(host)
            except TimeoutError:
                return False
        return not self._directory.host(host).barred
