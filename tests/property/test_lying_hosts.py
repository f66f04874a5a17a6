"""Hosts that lie in any field of any message, before a whole gateway: consumers get the answer or a plain error, and
what is promised is what the ledger says, to the wei."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lading_net.clock import run_virtual
from lading_protocol.messages import Accept, Done, Fail, Refuse, Tokens, Vectors
from property.lies import Liar
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import World, encode

STORY = [{"role": "user", "content": "tell me a story"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
ASKED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": STORY}),
    ("/v1/chat/completions", {"messages": STORY, "n": 2}),
    ("/v1/chat/completions", {"messages": STORY, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"messages": STORY, "tools": [TOOL]}),
    ("/v1/completions", {"prompt": "tell me"}),
    ("/v1/responses", {"input": "tell me"}),
    ("/v1/embeddings", {"input": ["a", "b"]}),
)
UNDUE = (
    Refuse("busy", "No slot."),
    Refuse("too_long", "It is too long."),
    Fail("engine_crashed", "It broke."),
    Fail("preempted", "Others came."),
    Accept(5, bytes(32)),
    Done(bytes(700)),
    Vectors(0, 4, bytes(16)),
    Tokens(0, (1,), "x", bytes(32)),
)
PLAIN = {200: {""}, 400: {"context_length_exceeded"}, 502: {"job_lost"}, 503: {"no_host"}}


@pytest.mark.parametrize("seed", range(8))
def test_whatever_hosts_say_consumers_and_the_books_stay_right(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(seed)

    class Lying(Host):
        async def _work(self, attempt: Any, opening: Any) -> None:
            attempt.messages = Liar(attempt.messages, rng, rng.choice([0.02, 0.1, 0.4]), UNDUE)
            await super()._work(attempt, opening)

    async def main() -> None:
        world = World(asyncio.get_running_loop(), tmp_path / "home", audits=False)
        async with world.running():
            for n in range(3):
                await world.host(f"liar {n}", Habits(length=40, burst=rng.choice([1, 3])), kind=Lying)
            for n in range(2):
                await world.host(f"honest {n}", Habits(length=40, price_in=2_000_000))
            api_key = await world.session()
            for _ in range(4):
                await asyncio.gather(*(_ask(world, api_key, rng) for _ in range(rng.choice([1, 4]))))
            await asyncio.sleep(20)
            await world.coordinator.ledger.flush()
            assert _promised(world) == _recorded(world)
            assert world.coordinator.dispatcher.reserved == {}
            hosts = world.coordinator.directory.hosts()
            assert all(not state.busy for state in hosts.values())
            for host in world.hosts:
                if type(host) is Host:
                    assert hosts[host.key.address].shunned_until == 0, "nobody's lies are laid at an honest door"

    run_virtual(main(), seed=seed)
    assert [one for one in caplog.records if "handler of" not in one.msg and one.levelname == "ERROR"] == []


async def _ask(world: World, api_key: str, rng: random.Random) -> None:
    path, body = rng.choice(ASKED)
    asked = {"model": "storyteller", **body}
    if "embeddings" not in path:
        asked["stream"] = rng.random() < 0.5
    if rng.random() < 0.3:  # it leaves, at any point
        wire = world.connect()
        wire.send(encode("POST", path, asked, api_key))
        for _ in range(rng.randrange(60)):
            await asyncio.sleep(0)
        wire.hang_up()
        return
    answer = await world.ask("POST", path, asked, api_key)
    code = "" if answer.status == 200 else answer.error["code"]
    assert code in PLAIN.get(answer.status, ()), (answer.status, code)


def _promised(world: World) -> Counter[bytes]:
    found: Counter[bytes] = Counter()
    for seat in world.coordinator.sessions._seats.values():
        for channel, held in world.coordinator.purse.channels(seat.key.address):
            found[channel.host] += held.cumulative
    return found


def _recorded(world: World) -> Counter[bytes]:
    return Counter({host: int(amount) for host, (_, amount) in world.coordinator.ledger.earned().items()})
