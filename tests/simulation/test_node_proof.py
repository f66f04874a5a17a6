"""The first host's receipt travels with an answer that goes on elsewhere: at real nodes, over a chain with stakes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from factories import chat_request, key
from lading.dispatch import Ask, Ended, Piece
from lading.dispatch.events import Signed
from lading_net.clock import run_virtual
from lading_node.agents import Serving
from lading_node.node import Node
from lading_protocol.eip712 import read_field
from lading_protocol.ids import Address
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Receipt, StakeConsent
from simulation.node_world import AGENT, COIN, PRICE, Gateway, Sea

REQUEST = chat_request("Tell me of the long work.", max_tokens=120, temperature=0.9)


class Coast:
    def __init__(self, sea: Sea, gateways: list[Gateway], nodes: list[Node]) -> None:
        self.sea, self.gateways, self.nodes = sea, gateways, nodes

    async def stake(self, node: Node) -> None:
        """By its owner, who is somebody else."""
        owner, contracts = key("owner of " + node.address.hex()), self.sea.contracts
        await contracts.coin.transfer(key("treasury"), owner.address, 2000 * COIN)
        await contracts.coin.allow(owner, self.sea.record.staking, 2000 * COIN)
        who = next(key(f"host {n}") for n in range(9) if key(f"host {n}").address == node.address)
        consent = StakeConsent(owner.address).sign(self.sea.record.staking_domain, who).signature
        await contracts.staking.stake(owner, node.address, 2000 * COIN, consent)

    def lent(self) -> int:
        """What prompts are worth that hosts read on somebody's word alone."""
        return sum(channel.lent for node in self.nodes for channel in node.channels.all())


def play(story: Callable[[Coast], Awaitable[None]], hosts: int = 2) -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateways = [Gateway(sea, name) for name in ("first gateway", "second gateway")]
        endpoints = []
        for n, gateway in enumerate(gateways):
            await sea.fund(gateway.key)
            endpoints.append(await gateway.start(f"/ip4/10.9.9.{n + 1}/tcp/4100"))
        serving = (Serving(AGENT, sea.terms, PRICE, slots=4),)
        made = [sea.node(f"host {n}", coordinators=tuple(endpoints), agents=serving) for n in range(hosts)]
        tasks = [asyncio.ensure_future(node.run()) for node in made]
        for gateway in gateways:
            await gateway.offers(hosts)
        await story(Coast(sea, gateways, made))
        for gateway in gateways:
            await gateway.dispatcher.close()
        for node in made:
            node.stop()
        await asyncio.gather(*tasks)

    run_virtual(main(), limit=20_000)


async def carry(gateway: Gateway, ask: Ask, until: int = 1000) -> tuple[list[int], list[bytes], Ended | None]:
    """The tokens and receipts of a job whose consumer goes away after `until` tokens."""
    ids: list[int] = []
    signed: list[bytes] = []
    run = gateway.dispatcher.run(gateway.payer, ask)
    ended = None
    async for event in run:
        match event:
            case Piece():
                ids += event.ids
            case Signed():
                signed.append(event.receipt)
            case Ended():
                ended = event
            case _:
                pass
        if len(ids) >= until and (signed or not ask.told):
            break
    await run.aclose()
    return ids, signed, ended


@pytest.mark.parametrize(("staked", "shown"), [(True, True), (True, False), (False, True)])
def test_a_receipt_of_a_host_with_a_stake_shows_that_the_prompt_is_billed(staked: bool, shown: bool) -> None:
    async def story(coast: Coast) -> None:
        first, second = coast.gateways
        for node in coast.nodes if staked else []:
            await coast.stake(node)
        for gateway in coast.gateways:  # each learns what its hosts understand
            for _ in coast.nodes:
                await carry(gateway, Ask(AGENT, REQUEST, told=True))
        ids, receipts, _ = await carry(first, Ask(AGENT, REQUEST, told=True), until=1)
        assert len(ids) < 32, "it came with the first tokens"
        whole, _, _ = await carry(first, Ask(AGENT, REQUEST))
        gone = Address(read_field(Receipt, receipts[0], "host"))  # it would know its own receipt
        second.dispatcher.directory.failed(gone, second.dispatcher.clock(), blame=True)
        ask = Ask(AGENT, REQUEST, emitted=tuple(ids), proof=receipts[0] if shown else b"")
        rest, _, ended = await carry(second, ask)
        assert ids + rest == whole
        assert ended is not None
        assert ended.cost == attempt_amount(PRICE, 0, len(ids), len(rest))
        prompt = attempt_amount(PRICE, ended.prompt_tokens, 0, 0)
        assert coast.lent() == (0 if staked and shown else prompt)

    play(story)


def test_a_job_that_moves_brings_the_receipt_itself() -> None:
    async def story(coast: Coast) -> None:
        [gateway, _] = coast.gateways
        for node in coast.nodes:
            await coast.stake(node)
        for _ in range(2):
            await carry(gateway, Ask(AGENT, REQUEST, told=True))
        run = gateway.dispatcher.run(gateway.payer, Ask(AGENT, REQUEST, told=True))
        stopped: list[Node] = []
        async for event in run:
            if isinstance(event, Piece) and event.first > 40 and not stopped:
                stopped = [node for node in coast.nodes if node.desk.running]
                asyncio.get_running_loop().create_task(stopped[0].desk.stop(0.0))
            if isinstance(event, Ended):
                assert [part.first > 0 for part in event.parts] == [False, True]
                assert event.cost == sum(part.amount for part in event.parts)
        assert len(stopped) == 1
        assert coast.lent() == 0

    play(story)
