"""The queue in front of the dispatcher: whole requests that wait, are turned away, leave, or cannot pay."""

import asyncio
from typing import Any

import pytest

from factories import key
from lading_protocol.ids import to_hex
from lading_protocol.pricing import Price, attempt_amount
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits
from unit.coordinator.world import COIN, Answer, World, encode

BODY = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}]}
SECOND = Habits(slots=1, length=11, pause=0.1)


async def timed(world: World, api_key: str, **headers: str) -> tuple[float, Answer]:
    answer = await world.ask("POST", "/v1/chat/completions", BODY, api_key, **headers)
    return world.loop.time(), answer


def test_who_finds_no_room_waits_for_it(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", SECOND)
        api_key = await world.session()
        await world.chat(api_key, max_tokens=1)
        began = world.loop.time()
        done = await asyncio.gather(*(timed(world, api_key) for _ in range(4)))
        assert [answer.status for _, answer in done] == [200] * 4
        for turn, (ended, answer) in enumerate(sorted(done, key=lambda one: one[0])):
            assert ended - began == pytest.approx(1.1 * (turn + 1), abs=0.4), "a slot that came free is used at once"
            assert answer.headers["x-lading-cost"] == str(attempt_amount(Price(10**6, 2 * 10**6), 4, 0, 11))  # type: ignore[arg-type]
        assert host.refused <= 4, "at most one that came before the host had tidied up"

    play(story)


def test_batch_work_gives_way(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("one", SECOND)
        api_key = await world.session()
        first = asyncio.create_task(timed(world, api_key))
        await asyncio.sleep(0.2)
        slow = [asyncio.create_task(timed(world, api_key, x_lading_band="batch")) for _ in range(2)]
        await asyncio.sleep(0.2)
        fast = [asyncio.create_task(timed(world, api_key)) for _ in range(2)]
        done = await asyncio.gather(first, *fast, *slow)
        assert [answer.status for _, answer in done] == [200] * 5
        assert [ended for ended, _ in done] == sorted(ended for ended, _ in done)
        odd = await world.ask("POST", "/v1/chat/completions", BODY, api_key, x_lading_band="fast")
        assert (odd.status, "x-lading-band" in odd.error["message"]) == (400, True)

    play(story)


def test_what_cannot_be_paid_does_not_wait(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", Habits(slots=1, length=100, pause=0.1, price_in=COIN, price_out=COIN))
        rich = await world.session(cap=400 * COIN)
        poor = await world.session(cap=COIN // 100, deposit=0)
        asyncio.get_running_loop().create_task(world.chat(rich, max_tokens=100))
        await asyncio.sleep(2)
        began = world.loop.time()
        refused = await world.chat(poor, max_tokens=100)
        assert (refused.status, refused.error["code"]) == (402, "insufficient_funds")
        assert "wei" in refused.error["message"]
        assert world.loop.time() - began < 0.05
        assert len(host.served) == 1

    play(story)


def test_who_leaves_the_queue_is_out_of_it(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", Habits(slots=1, length=41, pause=0.1))
        api_key = await world.session()
        first = asyncio.create_task(timed(world, api_key))
        await asyncio.sleep(1.5)
        wire = world.connect()
        wire.send(encode("POST", "/v1/chat/completions", BODY, api_key))
        await asyncio.sleep(0.5)
        assert b"lading_jobs_waiting 1.0" in world.coordinator.metrics.text()
        wire.hang_up()
        await asyncio.sleep(0.1)
        assert b"lading_jobs_waiting 0.0" in world.coordinator.metrics.text()
        assert (await first)[1].status == 200
        await asyncio.sleep(10)
        assert len([one for one in host.served if one.request != b""]) - host.refused == 1

    play(story)


def test_pressure_is_429_with_a_time_to_come_back(play: Play) -> None:
    """Forty at once for one slot: those who cannot be served within their wait learn it before they wait for it."""

    async def story(world: World) -> None:
        await world.host("one", SECOND)
        api_key = await world.session()
        for _ in range(5):
            await world.chat(api_key)  # what an answer takes here is known now
        began = world.loop.time()
        done = await asyncio.gather(*(timed(world, api_key) for _ in range(40)))
        refused = [(ended - began, answer) for ended, answer in done if answer.status == 429]
        served = [ended for ended, answer in done if answer.status == 200]
        assert len(refused) + len(served) == 40
        assert 5 <= len(served) <= 19
        assert all(answer.error["type"] == "rate_limit_error" for _, answer in refused)
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for _, answer in refused)
        late = [ended for ended, _ in refused if ended > 0.5]
        assert len(late) <= 3, "turned away on arrival, not after the wait"
        assert max(served) - began <= 21.5

    play(story)


def test_the_queue_is_shared_by_payers_not_by_keys(play: Play) -> None:
    """One payer asks with two keys, another with one: each payer gets half."""

    async def story(world: World) -> None:
        await world.host("one", Habits(slots=1, length=6, pause=0.1))
        keys = [await world.session(), await world.session(deposit=0)]
        payer, world.payer = world.payer, key("second payer")
        await world.contracts.coin.transfer(payer, world.payer.address, 300 * COIN)
        other = await world.session(deposit=100 * COIN)
        order: list[str] = []

        async def ask(name: str, api_key: str) -> None:
            if (await timed(world, api_key))[1].status == 200:
                order.append(name)

        await asyncio.gather(
            *(ask("two keys", api_key) for api_key in keys for _ in range(4)),
            *(ask("one key", other) for _ in range(4)),
        )
        first = order[:8]
        assert 3 <= first.count("one key") <= 5, order

    play(story)


def test_without_any_host_it_is_503_at_once(play: Play) -> None:
    async def story(world: World) -> None:
        host: Any = await world.host("one", SECOND)
        api_key = await world.session()
        assert (await world.chat(api_key)).status == 200
        world.net.kill(host.key.address)
        await asyncio.sleep(1)
        began = world.loop.time()
        answer = await world.chat(api_key)
        assert (answer.status, answer.error["code"]) == (503, "no_host")
        assert answer.headers["retry-after"] == "1"
        assert world.loop.time() - began < 0.1
        assert to_hex(host.key.address)[:6] in answer.error["message"]

    play(story)
