"""Which coordinators a node keeps a link to, when it hears of more than it has room for: those of its own region."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from factories import key
from lading_coordinator.peers import announce
from lading_net.clock import run_virtual
from lading_net.ports import Stream
from lading_net.speech import serve_speech
from lading_node.agents import Serving
from lading_node.presence import MOST_LINKS, OF_OTHERS, Coordinator
from lading_protocol.messages import HEARTBEAT, CoordinatorDetail
from lading_protocol.speech import FEATURES, IN_REGION, OURS, Speech, agree, for_regions
from simulation.node_world import AGENT, PRICE, Sea


async def coordinator(sea: Sea, number: int, speech: Speech | None) -> asyncio.Task[None]:
    """It takes heartbeats, and says that it is there; without a `speech` it is of the first version."""
    who = key(f"coordinator {number}")
    transport = sea.network.transport(who)

    async def beats(stream: Stream) -> None:
        while await stream.read():
            pass

    transport.handle(HEARTBEAT, beats)
    if speech is not None:
        serve_speech(transport, speech)
    endpoint = await transport.listen(f"/ip4/10.9.{number}.1/tcp/4600")
    detail = CoordinatorDetail((endpoint,), "", "")
    gossip, domain = sea.network.gossip(who), sea.record.settlement_domain
    return asyncio.create_task(announce(gossip, lambda: detail, domain, who, sea.now))


def linked(found: list[Coordinator]) -> set[int]:
    numbers = {key(f"coordinator {n}").address: n for n in range(20)}
    return {numbers[one.address] for one in found if one.linked and one.address is not None}


def play(story: Callable[[Sea], Awaitable[None]]) -> None:
    async def main() -> None:
        await story(await Sea.create())

    run_virtual(main(), seed=1, limit=7200)


def test_a_node_ends_up_with_the_coordinators_of_its_region_and_does_without_when_there_are_none() -> None:
    async def story(sea: Sea) -> None:
        telling = [await coordinator(sea, n, for_regions(["us"])) for n in range(6)]
        serving = Serving(AGENT, sea.terms, PRICE, region="eu-de")
        node = sea.node("host", agents=(serving,))
        running = asyncio.create_task(node.run())
        await asyncio.sleep(90)
        known = node.presence.coordinators
        assert len(linked(known)) == MOST_LINKS, "better another region's than none"
        telling += [await coordinator(sea, n, for_regions(["eu"])) for n in (10, 11)]
        await asyncio.sleep(600)
        assert {10, 11} <= linked(known)
        assert len(linked(known)) == MOST_LINKS
        assert OF_OTHERS in {one.state for one in known}
        for _ in range(20):
            await asyncio.sleep(30)
            assert {10, 11} <= linked(known), "they stay"
        for task in (*telling, running):
            task.cancel()
        await asyncio.gather(*telling, running, return_exceptions=True)

    play(story)


def test_who_names_no_region_or_does_not_know_the_question_is_never_left() -> None:
    async def story(sea: Sea) -> None:
        telling = [await coordinator(sea, n, OURS if n % 2 else None) for n in range(6)]
        node = sea.node("host", agents=(Serving(AGENT, sea.terms, PRICE, region="eu-de"),))
        running = asyncio.create_task(node.run())
        await asyncio.sleep(90)
        first = linked(node.presence.coordinators)
        await asyncio.sleep(600)
        assert linked(node.presence.coordinators) == first
        assert len(first) == MOST_LINKS
        for task in (*telling, running):
            task.cancel()
        await asyncio.gather(*telling, running, return_exceptions=True)

    play(story)


@pytest.mark.parametrize(
    ("regions", "said"),
    [
        ([], set()),
        (["eu"], {"eu"}),
        (["eu-de", "us"], {"eu-de", "us"}),
        (["e" * 40], set()),
        ([f"r{n}" for n in range(99)], set()),
    ],
)
def test_regions_are_said_as_features_that_an_older_peer_takes_for_unknown_ones(
    regions: list[str], said: set[str]
) -> None:
    agreed = agree(OURS, for_regions(regions))
    assert not isinstance(agreed, str)
    assert agreed.regions == said
    assert agreed.features == frozenset(FEATURES)
    assert not any(one.startswith(IN_REGION) for one in agreed.features)
