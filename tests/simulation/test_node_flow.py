"""The whole life of jobs at real nodes: served, paid, redeemed; deaths, outages and crashes in between."""

import asyncio
from pathlib import Path

from factories import chat_request, embed_request
from lading.dispatch import Ask, Rows
from lading_contracts.settlement import Batch, ChannelKey
from lading_net.clock import run_virtual
from lading_protocol.eip712 import unpack
from lading_protocol.receipts import Voucher
from simulation.node_world import AGENT, Gateway, Sea


async def running(node) -> asyncio.Task:
    task = asyncio.get_running_loop().create_task(node.run())
    await node.started.wait()
    return task


def test_a_job_is_served_paid_and_redeemed() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=(await gateway.start(),))
        task = await running(node)
        await gateway.offers(1)
        text, ids = await gateway.ask()
        assert text
        assert ids
        await asyncio.sleep(45)  # the voucher is due after 30 s
        cost = gateway.ended[0].cost
        assert cost > 0
        settlement = sea.contracts.settlement
        channel = await settlement.channel(ChannelKey(gateway.key.address, node.address, sea.terms))
        assert channel.redeemed == cost
        assert await settlement.host_balance(node.address) + await settlement.earned(sea.terms) == cost
        assert node.desk.totals.earned == cost
        node.stop()
        await task

    run_virtual(main())


def test_a_host_that_dies_at_any_token_is_paid_for_what_it_delivered(tmp_path: Path) -> None:
    request = chat_request("Tell me of the sea.", max_tokens=80)

    async def main(die_after: float) -> tuple[list[int], int]:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        endpoint = (await gateway.start(),)
        folders = {name: tmp_path / f"{name}{die_after}" for name in ("first", "second")}
        nodes = {name: sea.node(name, coordinators=endpoint, folder=folder) for name, folder in folders.items()}
        tasks = {name: await running(node) for name, node in nodes.items()}
        await gateway.offers(2)
        ask = asyncio.ensure_future(gateway.ask(request))
        await asyncio.sleep(die_after)
        victim = next((name for name, node in nodes.items() if node.desk.running), "first")
        sea.network.kill(nodes[victim].address)
        tasks[victim].cancel()
        await asyncio.gather(tasks[victim], return_exceptions=True)
        await nodes[victim].doors.ledger.close()
        _, ids = await ask
        # the dead host comes back, collects the last voucher, redeems
        nodes[victim] = sea.node(victim, coordinators=endpoint, folder=folders[victim])
        tasks[victim] = await running(nodes[victim])
        await asyncio.sleep(100)
        settlement = sea.contracts.settlement
        for part in gateway.ended[0].parts:
            channel = await settlement.channel(ChannelKey(gateway.key.address, part.host, sea.terms))
            assert channel.redeemed == part.amount, part
        for name, node in nodes.items():
            node.stop()
            await tasks[name]
            await node.doors.ledger.close()
        return ids, len(gateway.ended[0].parts)

    whole, parts = run_virtual(main(60.0))
    assert parts == 1
    broken = 0
    for step in range(0, len(whole), 3):
        ids, parts = run_virtual(main(0.1 + 0.0231 * step))
        assert ids == whole
        broken += parts == 2
    assert broken >= len(whole) // 6


def test_an_outage_of_the_chain_stops_nothing_and_settles_later() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=(await gateway.start(),))
        task = await running(node)
        await gateway.offers(1)
        await gateway.ask()
        await asyncio.sleep(10)  # the lock lands
        sea.chain.down = True
        for turn in range(5):
            await gateway.ask(chat_request(f"again {turn}"))
            await asyncio.sleep(20)
        assert node.settler.status
        assert node.chain_trouble
        sea.chain.down = False
        await asyncio.sleep(120)
        assert node.settler.status == ""
        cost = sum(ended.cost for ended in gateway.ended)
        channel = await sea.contracts.settlement.channel(ChannelKey(gateway.key.address, node.address, sea.terms))
        assert channel.redeemed == cost
        node.stop()
        await task

    run_virtual(main())


def test_a_polite_shutdown_hands_running_jobs_to_others() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        endpoint = (await gateway.start(),)
        first = sea.node("first", coordinators=endpoint, token_delay=0.2)
        going = await running(first)
        await gateway.offers(1)
        ask = asyncio.ensure_future(gateway.ask(chat_request(max_tokens=90)))
        await asyncio.sleep(3)
        second = sea.node("second", coordinators=endpoint)
        staying = await running(second)
        await gateway.offers(2)
        first.stop()
        await going
        _, ids = await ask
        assert ids
        ended = gateway.ended[0]
        channel = await sea.contracts.settlement.channel(ChannelKey(gateway.key.address, first.address, sea.terms))
        assert channel.redeemed == ended.parts[0].amount > 0
        second.stop()
        await staying

    run_virtual(main())


def test_three_crashes_in_a_minute_withdraw_the_offer_and_say_why() -> None:
    async def main() -> None:
        from lading_node.engines.memory import MemoryEngine

        engines = []

        def make(spec):
            engines.append(MemoryEngine(spec, token_delay=0.05))
            return engines[-1]

        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=(await gateway.start(),), engine=make)
        task = await running(node)
        for crash in range(3):
            await gateway.offers(1)
            await asyncio.sleep(1)
            assert node.agents[0].state == "serving", crash
            await engines[-1].stop()
            await asyncio.sleep(0.5)
            assert node.agents[0].state == ("withdrawn" if crash == 2 else "restarting") or crash < 2
            await asyncio.sleep(3)
        assert node.agents[0].state == "withdrawn"
        assert "3 times in a minute" in node.agents[0].why
        assert gateway.directory.offers(AGENT) == []
        node.stop()
        await task

    run_virtual(main())


def test_many_jobs_at_once_are_each_paid_to_the_wei() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        endpoint = (await gateway.start(),)
        nodes = [sea.node(f"host{i}", coordinators=endpoint) for i in range(3)]
        tasks = [await running(node) for node in nodes]
        await gateway.offers(3)
        await asyncio.gather(*(gateway.ask(chat_request(f"question {i}", max_tokens=20 + 5 * i)) for i in range(10)))
        # one more job each, so that every channel's lock covers what was promised beside it
        await asyncio.gather(*(gateway.ask(chat_request(f"last {i}", max_tokens=200)) for i in range(6)))
        await asyncio.sleep(60)
        owed: dict[bytes, int] = {}
        for ended in gateway.ended:
            for part in ended.parts:
                owed[part.host] = owed.get(part.host, 0) + part.amount
        for node in nodes:
            if node.address not in owed:
                continue
            where = ChannelKey(gateway.key.address, node.address, sea.terms)
            channel = await sea.contracts.settlement.channel(where)
            assert channel.redeemed == owed[node.address] == node.desk.totals.earned
        for node in nodes:
            node.stop()
        await asyncio.gather(*tasks)

    run_virtual(main())


def test_what_was_redeemed_while_we_were_down_is_not_sent_again(tmp_path: Path) -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        endpoint = (await gateway.start(),)
        node = sea.node("host", coordinators=endpoint, folder=tmp_path)
        task = await running(node)
        await gateway.offers(1)
        await gateway.ask()
        await asyncio.sleep(10)
        sea.network.kill(node.address)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await node.doors.ledger.close()
        # anyone may redeem; a crash between our own transaction and our own note of it looks the same
        (((packed, _),),) = gateway.purse.pages(node.address, 9)
        voucher = unpack(Voucher, packed)
        batch = Batch(node.address, sea.terms)
        await sea.contracts.settlement.redeem(gateway.key, batch, [(voucher.value.cumulative, voucher.signature)])
        again = sea.node("host", coordinators=endpoint, folder=tmp_path)
        task = await running(again)
        sent: list[bytes] = []
        real = sea.chain.send

        async def watched(signer, to, data, value=0):
            sent.append(data)
            return await real(signer, to, data, value)

        sea.chain.send = watched  # type: ignore[method-assign]
        await asyncio.sleep(100)
        assert sent == []
        assert again.settler.status == ""
        assert again.channels.all()[0].redeemed == gateway.ended[0].cost
        again.stop()
        await task
        await again.doors.ledger.close()

    run_virtual(main())


def test_a_partition_moves_the_job_and_both_hosts_are_paid() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        endpoint = (await gateway.start(),)
        nodes = [sea.node(name, coordinators=endpoint, token_delay=0.1) for name in ("first", "second")]
        tasks = [await running(node) for node in nodes]
        await gateway.offers(2)
        ask = asyncio.ensure_future(gateway.ask(chat_request(max_tokens=90)))
        await asyncio.sleep(2)
        (cut,) = [node for node in nodes if node.desk.running]
        sea.network.partition([cut.address])
        _, ids = await ask
        sea.network.heal()
        assert ids
        await asyncio.sleep(150)
        ended = gateway.ended[0]
        assert [part.host == cut.address for part in ended.parts] == [True, False]
        for part in ended.parts:
            channel = await sea.contracts.settlement.channel(ChannelKey(gateway.key.address, part.host, sea.terms))
            assert channel.redeemed == part.amount
        assert cut.desk.totals.failed + cut.desk.totals.jobs >= 1
        for node in nodes:
            node.stop()
        await asyncio.gather(*tasks)

    run_virtual(main())


def test_embeddings_and_a_pace_that_the_operator_sets() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=(await gateway.start(),), pace=10.0, token_delay=0.0)
        task = await running(node)
        await gateway.offers(1)
        began = sea.now()
        _, ids = await gateway.ask(chat_request(max_tokens=40))
        assert sea.now() - began >= (len(ids) - 1) / 10
        rows = [e async for e in gateway.dispatcher.run(gateway.payer, Ask(AGENT, embed_request("a fox", "a hen")))]
        assert any(isinstance(event, Rows) for event in rows)
        await asyncio.sleep(1)
        (channel,) = node.channels.all()
        assert channel.earned == channel.signed == sum(ended.cost for ended in gateway.ended)
        node.stop()
        await task

    run_virtual(main())
