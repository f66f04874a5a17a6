"""Answers hosts that ask why they get work, or do not. What is said comes from lading.core.why."""

from collections.abc import Callable

import msgspec

from lading.core.why import Losses
from lading.dispatch import Directory
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.ids import Address, AgentId
from lading_protocol.losses import MOST_AGENTS, MOST_REASONS, MOST_WORDS, Account, AskWhy, Reason, Why

# A host that asks more often gets the same answer again: it takes milliseconds to find.
SAME_SECONDS = 5.0
MOST_KEPT = 1024
_ask = msgspec.msgpack.Decoder(AskWhy)


class WhyDesk:
    """`clock` gives Unix seconds."""

    def __init__(self, directory: Directory, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._clock = clock
        self._said: dict[Address, tuple[float, Why]] = {}

    async def serve(self, stream: Stream) -> None:
        """The handler of WHY."""
        messages: MessageStream[AskWhy] = MessageStream(stream, _ask)
        while await messages.recv() is not None:
            messages.send(self.answer(stream.peer))
            await messages.drain()

    def answer(self, host: Address) -> Why:
        now = self._clock()
        at, said = self._said.get(host, (0.0, None))
        if said is not None and 0 <= now - at < SAME_SECONDS:
            return said
        found = self._directory.losses(host, now)
        why = Why(tuple(account(agent, one, now) for agent, one in list(found.items())[:MOST_AGENTS]))
        while len(self._said) >= MOST_KEPT:
            del self._said[next(iter(self._said))]
        self._said[host] = now, why
        return why


def account(agent: AgentId, losses: Losses, now: float) -> Account:
    price = losses.price
    return Account(
        agent=agent,
        jobs=losses.jobs,
        won=losses.won,
        seconds=max(0, int(now - losses.since)),
        price_in="" if price is None else str(price.input),
        price_out="" if price is None else str(price.output),
        reasons=tuple(Reason(one.code, one.count, one.words[:MOST_WORDS]) for one in losses.reasons[:MOST_REASONS]),
    )
