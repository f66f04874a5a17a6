"""A payer with false papers at the door of a real node: each gets its reason, and the honest paper still counts."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from factories import chat_request
from integration.cli.quay import COIN, Quay, call
from lading_contracts.settlement import ChannelKey
from lading_net.direct import DirectTransport
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_protocol import VERSION
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, short
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import (
    JOB,
    OFFERS,
    Accept,
    Adverts,
    Chunk,
    Done,
    Open,
    Pay,
    Refuse,
    Tokens,
    ToPayer,
    WantOffers,
)
from lading_protocol.offers import KnownOffer, check_advert
from lading_protocol.receipts import Lock, Voucher
from lading_protocol.transcript import sha256

_to_payer = msgspec.msgpack.Decoder(ToPayer)
_adverts = msgspec.msgpack.Decoder(Adverts)


def tokens_of(messages: list[object]) -> list[int]:
    """What was delivered; how it was cut into frames is the host's affair."""
    return [token for message in messages if isinstance(message, Tokens) for token in message.ids]


class Door:
    """One host's door, and a payer who signs what it likes."""

    def __init__(self, quay: Quay, key: PrivateKey, link: Link, offer: KnownOffer) -> None:
        self.record = quay.theatre.contracts.deployment
        self.key = key
        self.link = link
        self.offer = offer
        self.jobs = 0

    @property
    def channel(self) -> ChannelKey:
        return ChannelKey(self.key.address, self.offer.host, self.offer.terms)

    def voucher(self, amount: int, domain: Domain | None = None, host: Address | None = None) -> bytes:
        paper = Voucher(host or self.offer.host, self.offer.terms, 0, amount)
        return paper.sign(domain or self.record.settlement_domain, self.key).pack()

    def lock(self, amount: int, domain: Domain | None = None) -> bytes:
        paper = Lock(self.offer.host, self.offer.terms, 0, amount)
        return paper.sign(domain or self.record.settlement_domain, self.key).pack()

    async def ask(self, *, lock: bytes = b"", voucher: bytes = b"", pays: int = 0, more: int = 0) -> list[Any]:
        """All that the host says to one job; at its receipts the payer promises `pays` wei, then `more`."""
        messages: MessageStream[Any] = MessageStream(await self.link.open(JOB), _to_payer)
        self.jobs += 1
        job = sha256(f"{self.key.address.hex()} {self.jobs}".encode())
        opening = Open(
            version=VERSION,
            job=job,
            attempt=0,
            offer=self.offer.id,
            signer=self.key.address,
            epoch=0,
            request=chat_request("What is 3 plus 4?", max_tokens=12, temperature=0.0),
            lock=lock,
            voucher=voucher,
        )
        messages.send(opening)
        await messages.drain()
        said: list[Any] = []
        async with asyncio.timeout(20):
            while (message := await messages.recv()) is not None:
                said.append(message)
                if isinstance(message, Chunk | Done) and pays:
                    messages.send(Pay(self.voucher(pays)))
                    if more:
                        messages.send(Pay(self.voucher(more)))
                    await messages.drain()
                if isinstance(message, Done):
                    break
        await messages.stream.close()
        return said


@asynccontextmanager
async def at_the_door(quay: Quay, home: Path) -> AsyncIterator[Door]:
    key = PrivateKey.from_hex((home / "key").read_text())
    record, host = quay.theatre.contracts.deployment, quay.hosts[1]
    transport = DirectTransport(key)
    try:
        hub = await transport.dial(quay.theatre.direct, None)
        messages: MessageStream[Adverts] = MessageStream(await hub.open(OFFERS), _adverts)
        messages.send(WantOffers())
        await messages.drain()
        answer = await messages.recv()
        assert answer is not None
        known = [check_advert(advert, record.settlement_domain, time.time()) for advert in answer.adverts]
        (offer,) = [one for one in known if one.host == host.address]
        link = await transport.dial(offer.detail.endpoints[0], offer.host)
        yield Door(quay, key, link, offer)
    finally:
        await transport.close()


def only_refusal(said: list[Any], code: str) -> str:
    (answer,) = said
    assert isinstance(answer, Refuse)
    assert answer.code == code
    return answer.message


def test_papers_for_another_chain_contract_or_host(quay: Quay) -> None:
    home = quay.consumer("a forger", deposit="2")

    async def story() -> None:
        record = quay.theatre.contracts.deployment
        async with at_the_door(quay, home) as door:
            good = door.lock(COIN)
            other_chain = Domain(record.chain_id + 1, record.settlement)
            other_contract = Domain(record.chain_id, record.staking)
            for domain in (other_chain, other_contract):
                words = only_refusal(await door.ask(lock=good, voucher=door.voucher(10, domain)), "bad_voucher")
                assert "signed" in words
                only_refusal(await door.ask(lock=door.lock(COIN, domain)), "bad_voucher")
            other_host = quay.hosts[0].address
            only_refusal(await door.ask(lock=good, voucher=door.voucher(10, host=other_host)), "bad_voucher")
            only_refusal(await door.ask(lock=good[:-9] + bytes(9)), "bad_voucher")
            only_refusal(await door.ask(lock=b"\0" * 193), "no_funds")  # over nothing, so it is not looked at
            only_refusal(await door.ask(lock=door.lock(50 * COIN)), "no_funds")
            said = await door.ask(lock=good, pays=COIN // 100)
            assert isinstance(said[0], Accept)
            assert isinstance(said[-1], Done)

    quay.run(story())
    # Refused papers moved nothing: all that left the free deposit is the one good lock.
    quay.until(lambda: free(quay, home) == COIN, "the lock is on chain")


def test_a_replayed_and_a_lower_voucher_change_nothing(quay: Quay) -> None:
    home = quay.consumer("a replayer", deposit="2")
    key = PrivateKey.from_hex((home / "key").read_text())

    async def story() -> None:
        t = quay.theatre
        async with at_the_door(quay, home) as door:
            high, low = COIN // 50, COIN // 200
            first = await door.ask(lock=door.lock(COIN), pays=high, more=low)
            assert isinstance(first[-1], Done)
            again = await door.ask(voucher=door.voucher(low), pays=low, more=high)
            assert isinstance(again[0], Accept), again
            assert tokens_of(again) == tokens_of(first)
            page = json.loads(await t.first_line(quay.hosts[1].name))["status"]

            async def held() -> bool:
                channels = (await t.client.get(page)).json()["channels"]
                mine = [one for one in channels if one["signer"] == short(key.address)]
                return [one["signed"] for one in mine] == [str(high)]

            await t.screen.until("the node holds the highest voucher, not the last", held)
            assert (await t.contracts.settlement.channel(door.channel)).redeemed == 0

    quay.run(story())


def free(quay: Quay, home: Path) -> int:
    return int(call("wallet", "balance", "--home", home, *quay.network, "--json").tree["free_deposit"])
