"""A node's own roots of receipts: each receipt under one of them, provable, none lost by an outage or a restart."""

import asyncio
from pathlib import Path

from factories import chat_request, key
from lading_contracts.court import Proof
from lading_net.clock import run_virtual
from lading_node.node import Node
from lading_protocol.eip712 import unpack
from lading_protocol.receipts import Receipt, SignedReceipt, receipt_leaf
from lading_protocol.transcript import merkle_root
from simulation.node_world import COIN, Gateway, Sea
from simulation.test_node_court import stake

PERIOD = 60.0


def receipts(gateway: Gateway) -> list[SignedReceipt]:
    return [unpack(Receipt, part.receipt) for ended in gateway.ended for part in ended.parts if part.receipt]


async def up(sea: Sea, endpoint: str, folder: Path) -> tuple[Node, asyncio.Task[None]]:
    node = sea.node("host", coordinators=(endpoint,), folder=folder, anchor_every=PERIOD)
    task = asyncio.get_running_loop().create_task(node.run())
    await node.started.wait()
    return node, task


def test_every_receipt_is_under_one_root_and_can_be_proved(tmp_path: Path) -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        await stake(sea, "host")
        endpoint = await gateway.start()
        node, task = await up(sea, endpoint, tmp_path)
        await gateway.offers(1)
        court = sea.contracts.court
        for count in (1, 2):
            for n in range(count):
                await gateway.ask(chat_request(f"Tell me {n}.", max_tokens=5))
            await asyncio.sleep(2 * PERIOD)
            assert node.anchors.last is not None
            assert node.anchors.last.count == count
            assert await court.anchor_of(node.address, node.anchors.last.root) is not None
        first, *others = receipts(gateway)
        pair = [receipt_leaf(one) for one in others]
        assert node.anchors.last.root == merkle_root(pair)
        assert await court.anchor_of(node.address, receipt_leaf(first)) is not None
        await sea.contracts.coin.transfer(key("treasury"), gateway.key.address, 1000 * COIN)
        await sea.contracts.coin.allow(gateway.key, sea.record.court, 1000 * COIN)
        shown = Proof(node.anchors.last.root, 1, (pair[0],))
        assert await court.dispute(await court.open_anchored(gateway.key, others[1], shown)) is not None
        last = node.anchors.last
        node.stop()
        await task
        await node.doors.ledger.close()
        node, task = await up(sea, endpoint, tmp_path)
        await asyncio.sleep(2 * PERIOD)
        assert await court.anchors() == 2
        assert node.anchors.last == last
        await gateway.offers(1)
        sea.chain.down = True
        await gateway.ask(chat_request("Tell me more.", max_tokens=5))
        await asyncio.sleep(3 * PERIOD)
        assert node.anchors.last == last
        sea.chain.down = False
        await asyncio.sleep(2 * PERIOD)
        assert await court.anchors() == 3
        node.stop()
        await task
        await node.doors.ledger.close()

    run_virtual(main())
