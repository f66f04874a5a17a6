"""Two coordinators that know the same hosts: a slot is sold once, and the refusal costs nobody anything."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from factories import key
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.clock import run_virtual
from lading_protocol.ids import to_hex
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import Answer, World

ONE_SLOT = Habits(slots=1, length=11, pause=0.1)
Story = Callable[["Pair"], Awaitable[None]]


class Rival(World):
    """A second coordinator on the first one's network and chain."""

    def __init__(self, first: World, folder: Path) -> None:
        super().__init__(first.loop, folder, audits=False)
        self.first = first
        self.clock, self.chain, self.net, self.payer = first.clock, first.chain, first.net, first.payer
        self.key = key("rival")

    async def build(self) -> None:
        first = self.first
        self.contracts, self.record = first.contracts, first.record
        self.agent, self.terms = first.agent, first.terms
        transport = self.net.transport(self.key)
        self.endpoint = await transport.listen("/ip4/10.0.0.2/tcp/4600")
        settings = msgspec.convert({"home": str(self._folder), "audits": False}, CoordinatorSettings)
        gossip, rng = self.net.gossip(self.key), random.Random(8)
        outside = Outside(self.key, self.contracts, transport, gossip, (self.endpoint,), self.clock, rng.randbytes)
        self.coordinator = Coordinator(settings, outside)
        self.app = self.coordinator.application()


class Pair:
    def __init__(self, one: World, other: Rival) -> None:
        self.one, self.other = one, other

    async def host(self, label: str, habits: Habits) -> Host:
        """Linked to both."""
        host = await self.one.host(label, habits)
        self.one.tasks.append(asyncio.create_task(host.join(self.other.endpoint)))
        await asyncio.sleep(0.2)
        return host

    async def keys(self) -> tuple[str, str]:
        return await self.one.session(), await self.other.session(deposit=0)

    async def at_once(self, *keys: str) -> list[tuple[float, Answer]]:
        async def ask(world: World, api_key: str) -> tuple[float, Answer]:
            answer = await world.chat(api_key)
            return world.loop.time(), answer

        return list(await asyncio.gather(*(map(ask, (self.one, self.other), keys))))


@pytest.fixture
def play_two(tmp_path: Path) -> Callable[[Story], None]:
    def run(story: Story) -> None:
        async def main() -> None:
            one = World(asyncio.get_running_loop(), tmp_path / "one", audits=False)
            async with one.running():
                other = Rival(one, tmp_path / "other")
                async with other.running():
                    await story(Pair(one, other))

        run_virtual(main(), seed=1, limit=7200)

    return run


def promised(world: World) -> int:
    """What a coordinator's sessions have signed to hosts in all."""
    purse = world.coordinator.purse
    signers = [opening.signer for host in world.hosts for opening in host.served]
    return sum(channel.cumulative for signer in set(signers) for _, channel in purse.channels(signer))  # type: ignore[arg-type]


def test_one_slot_is_sold_once_and_the_other_waits(play_two: Callable[[Story], None]) -> None:
    async def story(pair: Pair) -> None:
        host = await pair.host("one", ONE_SLOT)
        keys = await pair.keys()
        began = pair.one.loop.time()
        done = await pair.at_once(*keys)
        assert [answer.status for _, answer in done] == [200, 200]
        first, second = sorted(ended - began for ended, _ in done)
        assert first == pytest.approx(1.2, abs=0.4), "one was served at once"
        assert second - first <= 2.0, "the other when it next asked, at most 0.8 s after the slot was free"
        assert host.refused >= 1
        costs = {int(answer.headers["x-lading-cost"]) for _, answer in done}
        pair.other.hosts = pair.one.hosts
        assert [promised(pair.one), promised(pair.other)] == [min(costs)] * 2
        assert len(costs) == 1, "nobody paid for the refusal"
        for world in (pair.one, pair.other):
            state = world.coordinator.directory.host(host.key.address)
            assert (state.failures, state.shunned_until) == (0, 0.0)
            assert world.coordinator.dispatcher.reserved == {}

    play_two(story)


def test_the_refused_goes_to_another_host_in_one_round_trip(play_two: Callable[[Story], None]) -> None:
    async def story(pair: Pair) -> None:
        cheap = await pair.host("cheap", ONE_SLOT)
        dear = await pair.host("dear", Habits(slots=4, length=11, pause=0.1, price_out=3_000_000))
        keys = await pair.keys()
        began = pair.one.loop.time()
        done = await pair.at_once(*keys)
        assert [answer.status for _, answer in done] == [200, 200]
        assert {answer.headers["x-lading-host"] for _, answer in done} == {
            to_hex(cheap.key.address),
            to_hex(dear.key.address),
        }
        assert max(ended for ended, _ in done) - began <= 1.6
        assert (cheap.refused, len(dear.served)) == (1, 1)

    play_two(story)


def test_a_refusal_corrects_the_view_until_the_next_report(play_two: Callable[[Story], None]) -> None:
    async def story(pair: Pair) -> None:
        host = await pair.host("one", Habits(slots=1, length=61, pause=0.1))
        keys = await pair.keys()
        first = asyncio.create_task(pair.one.chat(keys[0]))
        await asyncio.sleep(0.3)
        second = asyncio.create_task(pair.other.chat(keys[1]))
        await asyncio.sleep(0.02)
        assert (host.running, host.refused) == (1, 1)
        assert pair.other.coordinator.directory.host(host.key.address).free == 0
        assert [(await task).status for task in (first, second)] == [200, 200]
        assert host.refused <= 14, "a full host is not asked again and again"

    play_two(story)


def test_many_at_two_doors_are_all_served_and_none_twice(play_two: Callable[[Story], None]) -> None:
    async def story(pair: Pair) -> None:
        hosts = [await pair.host(f"host {i}", Habits(slots=2, length=6, pause=0.05)) for i in range(3)]
        keys = await pair.keys()
        doors = list(zip((pair.one, pair.other), keys, strict=True))
        for world, api_key in doors:
            assert (await world.chat(api_key)).status == 200  # how long an answer takes is known now
        asked = [world.chat(api_key) for world, api_key in doors for _ in range(40)]
        done = await asyncio.gather(*asked)
        assert [answer.status for answer in done] == [200] * 80
        assert len({answer.headers["x-lading-job"] for answer in done}) == 80
        assert sum(len(host.served) - host.refused for host in hosts) == 82
        cost = 82 * int(done[0].headers["x-lading-cost"])
        pair.other.hosts = pair.one.hosts
        assert promised(pair.one) + promised(pair.other) == cost

    play_two(story)
