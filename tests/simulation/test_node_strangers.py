"""One payer under many names: what a host gives on trust it gives a payer once, not each of its channels."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from factories import chat_request, job_id
from lading_net.clock import run_virtual
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_node.channels import MOST_STRANGERS
from lading_node.core.channel import Channel, ChannelId, lent_cap, unpaid_cap
from lading_node.node import Node
from lading_protocol import VERSION
from lading_protocol.ids import Address, Wei
from lading_protocol.messages import JOB, Accept, Open, Refuse, Tokens, ToPayer
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Lock
from simulation.node_world import COIN, PRICE, Gateway, Sea

PROMPT = "word " * 160
_to_payer = msgspec.msgpack.Decoder(ToPayer)


class Thief:
    """Has a deposit and pays nothing: each job comes on another epoch of its channel, with a lock just large enough."""

    def __init__(self, sea: Sea, gateway: Gateway, node: Node, offer: KnownOffer) -> None:
        self.sea, self.gateway, self.node, self.offer = sea, gateway, node, offer
        self.got = self.prompts = 0
        self.ids: tuple[int, ...] = ()
        self.refused: list[str] = []

    def id(self, epoch: int) -> ChannelId:
        return ChannelId(self.gateway.key.address, self.offer.terms, epoch)

    async def take(self, epoch: int, emitted: tuple[int, ...] = ()) -> None:
        secret, terms = self.gateway.key, self.offer.terms
        lock = Lock(self.node.address, terms, epoch, 3 * COIN).sign(self.sea.record.settlement_domain, secret)
        request = chat_request(PROMPT, max_tokens=60)
        (link,) = self.gateway.transport.links(self.node.address)
        messages: MessageStream[object] = MessageStream(await link.open(JOB), _to_payer)
        asked = Open(
            version=VERSION,
            job=job_id(f"job {epoch} {len(emitted)}"),
            attempt=0,
            offer=self.offer.id,
            signer=secret.address,
            epoch=epoch,
            request=request,
            emitted=emitted,
            lock=lock.pack(),
            voucher=b"",
        )
        messages.send(asked)
        prompt = count = 0
        with suppress(NetError, TimeoutError):
            async with asyncio.timeout(5):
                while (said := await messages.recv()) is not None:
                    if isinstance(said, Accept):
                        prompt = said.prompt_tokens
                        self.prompts += prompt if emitted else 0
                    elif isinstance(said, Tokens):
                        count += len(said.ids)
                        self.ids += said.ids
                    elif isinstance(said, Refuse):
                        self.refused.append(said.code)
        self.got += attempt_amount(PRICE, prompt, 0, count)
        messages.reset()
        await asyncio.sleep(1)


@asynccontextmanager
async def robbed() -> AsyncIterator[tuple[Node, Thief]]:
    sea = await Sea.create()
    gateway = Gateway(sea)
    await sea.fund(gateway.key)
    endpoint = await gateway.start()
    node = sea.node("host", coordinators=(endpoint,))
    running = asyncio.ensure_future(node.run())
    await gateway.offers(1)
    (offer,) = gateway.directory.offers(gateway.agent)
    yield node, Thief(sea, gateway, node, offer)
    node.stop()
    await running


def most(trust: Wei) -> int:
    """One job may begin while what was left unpaid is still within the bound."""
    return trust + attempt_amount(PRICE, len(PROMPT) + 200, 0, 64)


def test_what_a_payer_leaves_unpaid_is_bounded_over_all_epochs_of_its_channel() -> None:
    async def main() -> None:
        async with robbed() as (_, thief):
            for epoch in range(30):
                await thief.take(epoch)
            assert 0 < thief.got <= most(unpaid_cap(Channel(thief.id(0)), PRICE))
            assert thief.refused[-1] == "unpaid"

    run_virtual(main())


def test_prompts_that_are_said_to_be_read_elsewhere_are_bounded_over_all_epochs_too() -> None:
    """The thief knows the first token, which is easy where an answer is short or was had before."""

    async def main() -> None:
        async with robbed() as (_, thief):
            await thief.take(0)
            first = thief.ids[:1]
            for epoch in range(1, 30):
                await thief.take(epoch, first)
            assert thief.prompts * PRICE.input // 1000 <= most(lent_cap(Channel(thief.id(0)), PRICE))
            assert set(thief.refused) <= {"unproven", "unpaid"}

    run_virtual(main())


def test_signers_that_nobody_heard_of_before_are_not_remembered_for_ever() -> None:
    async def main() -> None:
        async with robbed() as (node, thief):
            for n in range(3 * MOST_STRANGERS):
                stranger = ChannelId(Address(n.to_bytes(20, "big")), thief.offer.terms, 0)
                await node.channels.look_up(stranger, 1)
            assert len(node.channels._payers) <= MOST_STRANGERS + 8
            assert len(node.channels._signers) <= MOST_STRANGERS + 8

    run_virtual(main())
