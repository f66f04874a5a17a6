"""Answers hosts that ask why they get work, or do not. What is said comes from lading.core.why."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from lading.core.why import Losses
from lading.dispatch import Directory
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.ids import Address, AgentId, to_hex
from lading_protocol.losses import MOST_AGENTS, MOST_REASONS, MOST_WORDS, Account, AskWhy, Reason, Why

# A host that asks more often gets the same answer again: it takes milliseconds to find.
SAME_SECONDS = 5.0
MOST_KEPT = 1024
_why = msgspec.msgpack.Decoder(Why)
_ask = msgspec.msgpack.Decoder(AskWhy)


class WhyDesk:
    """`clock` gives Unix seconds. `others` asks the other processes of this coordinator, which choose hosts too."""

    def __init__(
        self, directory: Directory, clock: Callable[[], float], others: Callable[[str], Awaitable[list[bytes]]]
    ) -> None:
        self._others = others
        self._directory = directory
        self._clock = clock
        self._said: dict[Address, tuple[float, Why]] = {}

    async def serve(self, stream: Stream) -> None:
        """The handler of WHY."""
        messages: MessageStream[AskWhy] = MessageStream(stream, _ask)
        while await messages.recv() is not None:
            answers = await self._others(f"/why/{to_hex(stream.peer)}")
            messages.send(together([self.answer(stream.peer), *map(_why.decode, answers)]))
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


def together(whys: Sequence[Why]) -> Why:
    """What several processes saw, as one account for each agent."""
    if len(whys) == 1:
        return whys[0]
    found: dict[bytes, Account] = {}
    for why in whys:
        for one in why.agents:
            held = found.get(one.agent)
            found[one.agent] = one if held is None else _added(held, one)
    return Why(tuple(found.values())[:MOST_AGENTS])


def _added(one: Account, other: Account) -> Account:
    reasons = {reason.code: reason for reason in one.reasons}
    for reason in other.reasons:
        held = reasons.get(reason.code)
        reasons[reason.code] = reason if held is None else Reason(reason.code, held.count + reason.count, reason.words)
    newest = other if other.price_in else one
    return Account(
        agent=one.agent,
        jobs=one.jobs + other.jobs,
        won=one.won + other.won,
        seconds=max(one.seconds, other.seconds),
        price_in=newest.price_in,
        price_out=newest.price_out,
        reasons=tuple(sorted(reasons.values(), key=lambda reason: -reason.count)[:MOST_REASONS]),
    )


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
