"""Receipts that come bare: signed soon after, or their host is one that signs wrongly; nobody waits for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from factories import key
from lading.dispatch.sheaves import LATE_SECONDS
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_node import binder
from lading_node.binder import Binder
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address
from lading_protocol.messages import SHEAVES, Binding, BoundReceipts
from lading_protocol.receipts import Receipt, SignedReceipt
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import World


async def receipts(world: World, job: str) -> list[SignedReceipt]:
    tree = (await world.ask("GET", f"/lading/v1/receipts/{job}")).json
    return [unpack(Receipt, bytes.fromhex(one[2:])) for one in tree["receipts"]]


async def many(world: World, api_key: str, count: int, **changes: Any) -> list[str]:
    answers = await asyncio.gather(*(world.chat(api_key, **changes) for _ in range(count)))
    assert [answer.status for answer in answers] == [200] * count
    return [answer.headers["x-lading-job"] for answer in answers]


async def met(world: World, api_key: str) -> None:
    """After this the host has said that it binds."""
    await world.chat(api_key)
    await asyncio.sleep(1)


def binds(host: Host, made: Binder) -> None:
    host.binder = made
    host.transport.handle(SHEAVES, made.serve)


def test_jobs_that_end_together_are_signed_together_and_each_receipt_holds(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        api_key = await world.session()
        await met(world, api_key)
        jobs = await many(world, api_key, 12)
        found = [(await receipts(world, job))[0] for job in jobs]
        assert {one.value.job for one in found} == {bytes.fromhex(job[2:]) for job in jobs}
        for one in found:
            one.check(world.record.court_domain, host.key.address)
        assert sorted(len(one.signature) for one in found)[0] == 65, "the first one came alone"
        assert len({one.signature[:65] for one in found}) == 2
        assert len({one.signature for one in found}) == 12
        await asyncio.sleep(1)
        alone = (await world.chat(api_key)).headers["x-lading-job"]
        assert [len(one.signature) for one in await receipts(world, alone)] == [65], "nothing to bind it with"
        assert len(host.bound) == 11

    play(story)


def test_an_answer_does_not_wait_for_its_signature(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binder, "GATHER_SECONDS", 2.0)

    async def story(world: World) -> None:
        host = await world.host("one")
        api_key = await world.session()
        await met(world, api_key)
        await world.chat(api_key)  # alone, so signed at once
        clock = asyncio.get_running_loop().time
        began = clock()
        answer = await world.chat(api_key)
        assert clock() - began < 0.5
        assert host.bound == []
        (receipt,) = await receipts(world, answer.headers["x-lading-job"])
        assert 1.0 < clock() - began < 3.0, "who asks for the receipt waits for it"
        receipt.check(world.record.court_domain, host.key.address)
        assert host.bound == [receipt]

    play(story)


class Mute(Binder):
    """Never binds what it promised to."""

    def put(self, peer: Address, name: bytes, receipt: Receipt, keep: Callable[[SignedReceipt], None]) -> bool:
        return True


def cheats(play: Play, made: Callable[[World, Host], Binder], patience: float) -> None:
    """Answered and paid as ever; then it gets no more jobs, and the account has no receipt that does not hold."""

    async def story(world: World) -> None:
        host = await world.host("one", Habits(price_out=1))
        binds(host, made(world, host))
        other = await world.host("other")
        api_key = await world.session()
        await met(world, api_key)
        jobs = await many(world, api_key, 3)
        assert len(host.served) == 4
        await asyncio.sleep(patience)
        signed = [one for job in jobs for one in await receipts(world, job)]
        assert len(signed) <= 1, "one that comes alone is signed at once"
        for one in signed:
            one.check(world.record.court_domain, host.key.address)
        for job in jobs:
            row = (await world.ask("GET", f"/lading/v1/jobs/{job}")).json
            assert int(row["cost"]["wei"]) > 0
        (again,) = await many(world, api_key, 1)
        assert len(host.served) == 4, "it is left alone, as any host that lies"
        (good,) = await receipts(world, again)
        good.check(world.record.court_domain, other.key.address)

    play(story)


def test_a_host_that_never_signs_is_one_that_lies(play: Play) -> None:
    cheats(play, lambda world, host: Mute(host.key, world.record.court_domain), LATE_SECONDS + 1)


def test_a_host_that_signs_with_another_key_is_one_that_lies(play: Play) -> None:
    cheats(play, lambda world, host: Binder(key("thief"), world.record.court_domain), 0.5)


def test_a_host_that_signs_for_another_court_is_one_that_lies(play: Play) -> None:
    cheats(play, lambda world, host: Binder(host.key, world.record.settlement_domain), 0.5)


def test_an_older_host_signs_each_receipt(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one", Habits(binds=False))
        api_key = await world.session()
        await met(world, api_key)
        for job in await many(world, api_key, 5):
            (one,) = await receipts(world, job)
            assert len(one.signature) == 65
            one.check(world.record.court_domain, host.key.address)
        assert not host.bound

    play(story)


def test_a_stream_of_sheaves_that_ends_costs_what_was_not_signed_and_no_more(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")
        streams: list[Stream] = []

        async def serve(stream: Stream) -> None:
            streams.append(stream)
            await host.binder.serve(stream)

        host.transport.handle(SHEAVES, serve)
        api_key = await world.session()
        await met(world, api_key)
        host.binder = Mute(host.key, world.record.court_domain)
        jobs = await many(world, api_key, 2)
        streams[0].reset()
        await asyncio.sleep(0.5)
        assert [await receipts(world, job) for job in jobs] == [[], []]
        host.binder = Binder(host.key, world.record.court_domain)
        (job,) = await many(world, api_key, 1)
        (one,) = await receipts(world, job)
        assert len(one.signature) == 65, "the link is served as an older host's is"

    play(story)


def test_what_is_no_signature_or_was_never_asked_for_changes_nothing(play: Play) -> None:
    async def story(world: World) -> None:
        host = await world.host("one")

        async def babble(stream: Stream) -> None:
            messages: MessageStream[object] = MessageStream(stream, None)  # type: ignore[arg-type]
            messages.send(Binding())
            for n in range(50):
                messages.send(BoundReceipts(bytes(65), (bytes([n]) * 32,)))
            await messages.drain()
            await asyncio.Event().wait()

        host.transport.handle(SHEAVES, babble)
        api_key = await world.session()
        await met(world, api_key)
        (job,) = await many(world, api_key, 1)
        (one,) = await receipts(world, job)
        one.check(world.record.court_domain, host.key.address)

    play(story)
