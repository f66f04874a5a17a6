"""Asks other coordinators for offers that the own index lacks, and files what they quote. Decides nothing about jobs.

A request that can be served here never waits for it: what is better elsewhere is fetched behind, and is there for the
next one. Only who would find nobody waits, for a bounded time, and all who want the same wait for one question.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from lading.core.atlas import DEARER, POINTS_FORGED, POINTS_IN_VAIN, POINTS_SILENT, Atlas, Hint
from lading.core.matching import Aim, Filters, Want, aim_of, score
from lading.core.quotes import FRESH_SECONDS, enough, want_of, worth_a_look
from lading.dispatch.directory import Directory
from lading_net.dialling import dial_any
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link, Transport
from lading_protocol.eip712 import Domain
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, AgentId, short
from lading_protocol.offers import KnownOffer, check_advert
from lading_protocol.summaries import QUOTES, Quote, Quotes, WantQuotes

log = logging.getLogger(__name__)
_quotes = msgspec.msgpack.Decoder(Quotes)
# How long one coordinator has for its answer, and who would find nobody waits in all.
ANSWER_SECONDS: Final = 1.5
BRING_SECONDS: Final = 2.5
# What brought nothing is not asked again for longer each time.
MOST_REST_SECONDS: Final = 60.0
# Offers that are asked for where nobody counts how many are wanted.
SOME: Final = 16
# Coordinators asked for one request, at once and in all.
ABREAST: Final = 2
MOST_ASKED: Final = 4
MOST_ASKING: Final = 32
AT_ONCE: Final = 8
# Agents that are looked for because their hosts are taken, and for how long since somebody last waited.
MOST_HUNGRY: Final = 256
HUNGRY_SECONDS: Final = 10.0
MOST_REMEMBERED: Final = 4096
LATELY_SECONDS: Final = 10.0

# Whom and for what: aims differ with every request, what they insist on rarely does.
Question = tuple[Address, AgentId, Filters]
Admit = Callable[[Sequence[KnownOffer]], Awaitable[list[KnownOffer]]]


class _Rest(msgspec.Struct):
    """A question is not asked again before `until`; `vain` counts how often in a row it brought nothing."""

    until: float
    vain: int = 0


class Scout:
    """`admit` says which of the offers that were quoted may be chosen at all. `clock` gives Unix seconds."""

    def __init__(
        self,
        transport: Transport,
        directory: Directory,
        atlas: Atlas,
        domain: Domain,
        clock: Callable[[], float],
        admit: Admit,
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._atlas = atlas
        self._domain = domain
        self._clock = clock
        self._admit = admit
        self._asking: dict[Question, asyncio.Task[int]] = {}
        self._rests: dict[Question, _Rest] = {}
        self._hungry: dict[AgentId, tuple[float, Aim]] = {}
        self.asked = self.brought = 0

    async def bring(self, agent: AgentId, want: Want) -> bool:
        """Asks who may have it, for a bounded time; whether there is a host for it now that was not before."""
        aim = aim_of(want)
        hints = self._atlas.hints(agent, aim, self._clock())[:MOST_ASKED]
        if not hints:
            return False
        try:
            async with asyncio.timeout(BRING_SECONDS):
                for at in range(0, len(hints), ABREAST):
                    asked = [self._ask(agent, aim, hint) for hint in hints[at : at + ABREAST]]
                    running = [asyncio.shield(task) for task in asked if task is not None]
                    if running:
                        await asyncio.gather(*running)
                    if self._directory.has_host(agent, want, self._clock()):
                        return True
        except TimeoutError:
            pass
        return self._directory.has_host(agent, want, self._clock())

    def seek(self, agent: AgentId, aim: Aim, among: int = ABREAST, most: int = SOME) -> None:
        """The same behind; nobody waits. Some `among` the best are asked, of those that were not just now, for `most`
        offers each."""
        asked = 0
        for hint in self._atlas.hints(agent, aim, self._clock())[:among]:
            asked += self._ask(agent, aim, hint, most) is not None
            if asked == ABREAST:
                return

    def want_more(self, agent: AgentId, aim: Aim) -> None:
        """Hosts are all taken here: look for others, and go on looking for some time."""
        if agent not in self._hungry and len(self._hungry) >= MOST_HUNGRY:
            del self._hungry[next(iter(self._hungry))]
        self._hungry[agent] = self._clock() + HUNGRY_SECONDS, aim
        self.seek(agent, aim, MOST_ASKED)

    def heard(self, coordinator: Address) -> None:
        """It says something new: what it did not have a moment ago it may have now."""
        now = self._clock()
        for question, rest in self._rests.items():
            if question[0] == coordinator and rest.vain:
                rest.until = min(rest.until, now)

    def look_around(self) -> None:
        """Once a second: what was chosen lately, is it better elsewhere? And what came from there, is it as it was?"""
        now = self._clock()
        self._hungry = {agent: (until, aim) for agent, (until, aim) in self._hungry.items() if until > now}
        for agent, (_, aim) in self._hungry.items():
            self.seek(agent, aim, MOST_ASKED)
        for agent in list(self._atlas.agents()):
            lately = self._directory.latest(agent)
            if lately is None or not now - LATELY_SECONDS < lately[0].at <= now:
                continue
            choice, count = lately
            pressing = choice.host is not None and self._directory.presses(choice.host)
            if worth_a_look(choice, self._atlas.hints(agent, choice.aim, now), pressing=pressing):
                self.seek(agent, choice.aim, most=enough(count))
        if len(self._rests) > MOST_REMEMBERED:
            self._rests = {question: rest for question, rest in self._rests.items() if rest.until > now}

    async def close(self) -> None:
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # A question

    def _ask(self, agent: AgentId, aim: Aim, hint: Hint, most: int = SOME) -> "asyncio.Task[int] | None":
        """The running question, or a new one; None while it rests, or when too many run."""
        question = hint.coordinator, agent, aim.filters
        task = self._asking.get(question)
        if task is not None:
            return task
        rest, now = self._rests.get(question), self._clock()
        if (rest is not None and now < rest.until <= now + MOST_REST_SECONDS) or len(self._asking) >= MOST_ASKING:
            return None
        if len(self._rests) >= 2 * MOST_REMEMBERED:
            self._rests.clear()
        task = self._asking[question] = asyncio.ensure_future(self._asked(question, aim, hint, most))
        task.add_done_callback(lambda _: self._asking.pop(question, None))
        return task

    async def _asked(self, question: Question, aim: Aim, hint: Hint, most: int) -> int:
        """How many good offers were quoted."""
        self.asked += 1
        found = 0
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                link = await dial_any(self._transport, hint.endpoints, hint.coordinator, ANSWER_SECONDS)
                answer = await ask_for_quotes(link, want_of(question[1], aim, most))
            found = await self._file(question[1], aim, hint, answer)
        except (LadingError, TimeoutError) as error:
            log.info("Coordinator %s quotes nothing: %s", short(hint.coordinator), str(error) or "no answer in time")
            self._atlas.in_vain(hint.coordinator, self._clock(), POINTS_SILENT)
        rest = self._rests.setdefault(question, _Rest(0.0))
        rest.vain = 0 if found else rest.vain + 1
        pause = min(FRESH_SECONDS * 2 ** min(rest.vain, 8), MOST_REST_SECONDS)
        rest.until = self._clock() + pause
        return found

    async def _file(self, agent: AgentId, aim: Aim, hint: Hint, answer: Quotes) -> int:
        now = self._clock()
        reports: dict[Address, Quote] = {}
        checked: list[KnownOffer] = []
        for number, quote in enumerate(answer.quotes):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # signatures take their time
            try:
                known = self._directory.held(quote.advert) or check_advert(quote.advert, self._domain, now)
            except LadingError as error:
                log.info("A quote of coordinator %s is no offer: %s", short(hint.coordinator), error.message)
                self._atlas.in_vain(hint.coordinator, now, POINTS_FORGED)
                return 0
            if known.agent == agent and known.host not in reports:
                reports[known.host] = quote
                checked.append(known)
        admitted = await self._admit(checked)
        self._judge(aim, hint, admitted)
        for known in admitted:
            quote = reports[known.host]
            at = now - quote.age_ms / 1000
            self.brought += self._directory.quote(known, quote.free, quote.waiting, at)
        return len(admitted)

    def _judge(self, aim: Aim, hint: Hint, quoted: Sequence[KnownOffer]) -> None:
        """A summary that promises what is not there costs a look; who does so again and again is not believed."""
        best = min((score(known.price, aim, 0, 0) for known in quoted), default=None)
        if best is None or best * 10 > hint.score * DEARER:
            self._atlas.in_vain(hint.coordinator, self._clock(), POINTS_IN_VAIN)
        else:
            self._atlas.proved(hint.coordinator)


async def ask_for_quotes(link: Link, want: WantQuotes) -> Quotes:
    """Raises NetError."""
    messages: MessageStream[Quotes] = MessageStream(await link.open(QUOTES), _quotes)
    messages.send(want)
    await messages.drain()
    answer = await messages.recv()
    await messages.close()
    if answer is None:
        raise NetError("it hung up without an answer")
    return answer
