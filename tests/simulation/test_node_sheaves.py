"""Real nodes that sign receipts many at once: what both sides hold, under crowds, old programs, deaths and stops."""

import asyncio
from pathlib import Path

import pytest

from factories import chat_request, embed_request
from lading.dispatch import Ask, Rows
from lading_net.clock import run_virtual
from lading_node import binder
from lading_node.agents import Serving
from lading_node.node import Node
from lading_protocol.eip712 import unpack
from lading_protocol.receipts import Finish, Receipt, SignedReceipt
from simulation.node_world import AGENT, PRICE, Gateway, Sea


async def running(node: Node) -> asyncio.Task[None]:
    task = asyncio.get_running_loop().create_task(node.run())
    await node.started.wait()
    return task


def served(sea: Sea) -> tuple[Serving, ...]:
    return (Serving(AGENT, sea.terms, PRICE, slots=64),)


async def receipts(gateway: Gateway) -> list[SignedReceipt]:
    await gateway.dispatcher.settle()
    return [unpack(Receipt, part.receipt) for ended in gateway.ended for part in ended.parts if part.receipt]


def test_a_crowd_of_jobs_is_signed_for_in_few_signatures_and_both_sides_hold_the_same(tmp_path: Path) -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea, bare=True)
        await sea.fund(gateway.key)
        node = sea.node(
            "host",
            coordinators=(await gateway.start(),),
            folder=tmp_path,
            agents=served(sea),
        )
        task = await running(node)
        await gateway.offers(1)
        await gateway.ask(chat_request("Hello.", max_tokens=3))  # it has told the node that it reads sheaves
        lengths = [1 + n % 7 * 11 for n in range(40)]
        asks = [gateway.ask(chat_request(f"Tell me {n}.", max_tokens=m)) for n, m in enumerate(lengths)]
        answers = await asyncio.gather(*asks)
        async for event in gateway.dispatcher.run(gateway.payer, Ask(AGENT, embed_request("a", "b"))):
            assert not isinstance(event, Rows) or event.data
        found = await receipts(gateway)
        assert len(found) == len(gateway.ended) == 42
        for one in found:
            one.check(sea.record.court_domain, node.address)
            assert one.value.finish in (Finish.STOP, Finish.LENGTH)
        assert sum(one.value.output_tokens for one in found[1:]) == sum(len(ids) for _, ids in answers)
        assert len({one.signature[:65] for one in found}) < len(found) / 2
        assert any(len(one.signature) > 65 for one in found)
        await asyncio.sleep(1)
        kept = [packed for _, packed in await node.doors.ledger.ended_after(0.0, 1000)]
        assert sorted(kept) == sorted(one.pack() for one in found)
        assert sum(one.value.amount for one in found) == node.desk.totals.earned == sum(e.cost for e in gateway.ended)
        node.stop()
        await task
        await node.doors.ledger.close()

    run_virtual(main())


def test_an_older_payer_gets_each_receipt_signed(tmp_path: Path) -> None:
    async def main() -> None:
        sea = await Sea.create()
        older, newer = Gateway(sea, "older"), Gateway(sea, "newer", bare=True)
        for gateway in (older, newer):
            await sea.fund(gateway.key)
        newer.dispatcher.rng.seed(8)  # no two jobs of one name
        endpoints = (await older.start("/ip4/10.9.9.8/tcp/4100"), await newer.start())
        node = sea.node("host", coordinators=endpoints, agents=served(sea))
        task = await running(node)
        for gateway in (older, newer):
            await gateway.offers(1)
            await gateway.ask(chat_request("Hello.", max_tokens=3))
        await asyncio.gather(*(gateway.ask(chat_request(max_tokens=9)) for gateway in (older, newer) for _ in range(8)))
        for gateway, alone in ((older, True), (newer, False)):
            found = await receipts(gateway)
            assert len(found) == 9
            assert all(len(one.signature) == 65 for one in found) == alone
            for one in found:
                one.check(sea.record.court_domain, node.address)
        node.stop()
        await task

    run_virtual(main())


def test_a_node_that_is_killed_before_it_signs_loses_that_receipt_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binder, "GATHER_SECONDS", 3.0)

    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea, bare=True)
        await sea.fund(gateway.key)
        endpoint = await gateway.start()
        node = sea.node("host", coordinators=(endpoint,), folder=tmp_path)
        task = await running(node)
        await gateway.offers(1)
        for _ in range(2):  # before it was told, and alone
            await gateway.ask(chat_request("Hello.", max_tokens=3))
        _, ids = await gateway.ask(chat_request(max_tokens=70))
        await asyncio.sleep(0.1)  # the voucher is there, the signature is not
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await node.doors.ledger.close()
        await gateway.dispatcher.settle()
        *_, last = gateway.ended
        assert last.cost == last.parts[0].amount > 0
        kept = unpack(Receipt, last.parts[0].receipt)  # that of its last whole chunk, signed at once
        assert (kept.value.finish, kept.value.output_tokens) == (Finish.RUNNING, len(ids) // 32 * 32)
        kept.check(sea.record.court_domain, node.address)
        again = sea.node("host", coordinators=(endpoint,), folder=tmp_path)
        task = await running(again)
        await gateway.offers(1)
        assert not again.channels.owing(gateway.key.address)
        await gateway.ask(chat_request(max_tokens=5))
        assert len(await receipts(gateway)) == 4
        again.stop()
        await task
        await again.doors.ledger.close()

    run_virtual(main())


def test_a_node_that_stops_signs_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binder, "GATHER_SECONDS", 60.0)

    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea, bare=True)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=(await gateway.start(),), folder=tmp_path)
        task = await running(node)
        await gateway.offers(1)
        for _ in range(2):  # before it was told, and alone
            await gateway.ask(chat_request("Hello.", max_tokens=3))
        await gateway.ask(chat_request(max_tokens=9))
        assert gateway.dispatcher.sheaves is not None
        node.stop()
        await task
        found = await receipts(gateway)
        assert len(found) == 3
        assert [len(one.signature) for one in found] == [65, 65, 65]
        kept = [packed for _, packed in await node.doors.ledger.ended_after(0.0, 9)]
        assert sorted(kept) == sorted(one.pack() for one in found)
        await node.doors.ledger.close()

    run_virtual(main())
