"""A gateway dies in the middle of answers: the client goes on at another, or at the same one once it is back.

Real sockets, two coordinators with purses of their own, hosts that both of them know.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import key
from integration.coordinator.town import ANY_PORT, COIN, Town
from lading import Client
from lading.answers import Bill, Delta, Notice, Piece
from lading.core.options import Options
from lading.core.receipts import check, check_job
from lading.dispatch.tab import TAB_SECONDS
from lading.errors import BadSettings
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_net.direct import DirectTransport
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import from_hex
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Receipt
from unit.coordinator.host import Habits, Host

PROMPT = "tell me a story"
LENGTH = 70


class Desk:
    """One coordinator of several, on a folder of its own; it can be killed, and come back."""

    def __init__(self, town: Town, name: str, **settings: object) -> None:
        self.town, self.name, self.settings = town, name, settings
        self.port = 0
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        who = key(self.name)
        self.transport = DirectTransport(who)
        self.endpoint = await self.transport.listen(ANY_PORT)
        base = {
            "home": str(self.town.folder / self.name),
            "http_port": self.port,
            "require_stake": False,
            "audits": False,
            "drain": 1.0,
        }
        outside = Outside(
            who,
            self.town.contracts,
            self.transport,
            None,
            (self.endpoint,),
            time.time,
            random.Random(self.name).randbytes,
        )
        self.coordinator = Coordinator(msgspec.convert(base | self.settings, CoordinatorSettings), outside)
        self.task = asyncio.create_task(self.coordinator.serve())
        await asyncio.wait_for(self.coordinator.ready.wait(), 10)
        self.port = self.coordinator.http_address[1]

    async def kill(self) -> None:
        """As a power loss would: from this moment on nothing is signed or written any more."""
        assert self.task is not None
        self.coordinator.purse.close()
        self.coordinator.store.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.task = None

    async def welcome(self, host: Host) -> None:
        """The host dials this coordinator, too."""
        self.town.tasks.append(asyncio.create_task(host.join(self.endpoint)))
        for _ in range(500):
            live = self.coordinator.gateway.models.live(self.town.agent)
            if any(one.host == host.key.address for one in live) and self.coordinator.catalogue.get(self.town.agent):
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the host did not come up")

    async def session(self) -> str:
        made = self.coordinator.sessions.create(self.town.payer.address)
        settlement, payer = self.town.contracts.settlement, self.town.payer
        await self.town.contracts.coin.approve(payer, self.town.record.settlement, 100 * COIN)
        await settlement.deposit(payer, 100 * COIN)
        await settlement.authorize(payer, made.session, 50 * COIN, int(time.time()) + 3600, made.consent)
        self.signer = made.session
        return made.api_key

    async def promised(self) -> int:
        """All that was ever signed here, as it stands on the disk a moment later."""
        from lading.dispatch import Purse

        await asyncio.sleep(5 * TAB_SECONDS)
        purse = Purse(self.town.folder / self.name / "purse.sqlite", self.town.record.settlement_domain)
        total = sum(channel.cumulative for _, channel in purse.channels(self.signer))
        purse.close()
        return total

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.asynccontextmanager
async def desks(folder: Path, *names: str, habits: Habits, **settings: object) -> AsyncIterator[list[Desk]]:
    town = Town(folder)
    await town.build()
    made = [Desk(town, name, **settings) for name in names]
    try:
        for desk in made:
            await desk.start()
        for label in ("one", "two"):
            transport = DirectTransport(key(label))
            await transport.listen(ANY_PORT)
            from lading_protocol.manifest import dump
            from unit.coordinator.world import manifest

            agents = [(town.agent, town.terms, "storyteller")]
            blobs = {town.agent: dump(manifest())}
            town.hosts.append(Host(transport, key(label), town.record, agents, time.time, habits, blobs))
            for desk in made:
                await desk.welcome(town.hosts[-1])
        yield made
    finally:
        for desk in made:
            if desk.task is not None:
                desk.coordinator.stop.set()
                await asyncio.wait_for(desk.task, 20)
        for task in town.tasks:
            task.cancel()
        for host in town.hosts:
            await host.transport.close()
        await town.coordinator.close()


class Reader:
    """Reads an answer; `at` that many pieces of text it does `then`, once."""

    def __init__(self, at: int = -1, then: object = None) -> None:
        self.at, self.then = at, then
        self.pieces: list[Piece] = []

    async def read(self, answer: AsyncIterator[Piece]) -> "Reader":
        async for piece in answer:
            self.pieces.append(piece)
            if isinstance(piece, Delta) and len(self.deltas) == self.at:
                await self.then()  # type: ignore[operator]
        return self

    @property
    def deltas(self) -> list[str]:
        return [piece.text for piece in self.pieces if isinstance(piece, Delta)]

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def bill(self) -> Bill:
        assert isinstance(self.pieces[-1], Bill)
        return self.pieces[-1]

    @property
    def notices(self) -> int:
        return sum(isinstance(piece, Notice) for piece in self.pieces)


async def whole(client: Client) -> Reader:
    return await Reader().read(client.chat("storyteller", PROMPT, Options(seed=7)))


def price(town: Town) -> Price:
    [known] = town.hosts[0].offers.values()
    return known.price


async def check_paid_once(first: Desk, second: int, reader: Reader, unbroken: Bill) -> None:
    """The bill is the whole answer's. The first gateway signed for no token that the second was asked for; the second
    for what it delivered."""
    cost = price(first.town)
    prompt = unbroken.prompt_tokens
    assert reader.bill.output_tokens == unbroken.output_tokens
    assert reader.bill.prompt_tokens == prompt
    assert reader.bill.cost == unbroken.cost
    delivered = [n for n in range(LENGTH + 1) if attempt_amount(cost, prompt, n, LENGTH - n) == second]
    assert len(delivered) == 1, "the second gateway was paid for the rest of the answer, without the prompt"
    [there] = delivered
    assert 0 < there < LENGTH
    most = attempt_amount(cost, prompt, 0, there)
    assert reader.bill.cost == most + second
    assert await first.promised() <= most


def check_receipts(town: Town, proof: dict[str, Any], bill: Bill, *, dead: bool) -> None:
    """What hosts signed through both gateways, as `lading receipt verify` reads it: also what the dead one told."""
    signed = [unpack(Receipt, bytes.fromhex(one[2:])) for one in proof["receipts"]]
    assert not any(check(one, town.record.court_domain, proof["ids"]).faults for one in signed)
    jobs = [from_hex(one, 32) for one in proof["jobs"]]
    assert check_job([one.value for one in signed], jobs) == ()
    assert len({one.value.job for one in signed}) == 1 + dead
    assert sum(one.value.amount for one in signed) <= bill.cost


@pytest.mark.parametrize("at", [1, 20, 40])
def test_another_coordinator_goes_on_and_every_token_is_paid_once(tmp_path: Path, at: int) -> None:
    async def story() -> None:
        habits = Habits(length=LENGTH, pause=0.01)
        async with desks(tmp_path, "first", "second", habits=habits) as (first, second):
            keys = [await first.session(), await second.session()]
            async with Client.through(second.url, keys[1]) as alone:
                unbroken = await whole(alone)
            before = await second.promised()
            async with Client.through(first.url, keys[0], [(second.url, keys[1])]) as client:
                answer = client.chat("storyteller", PROMPT, Options(seed=7))
                reader = await Reader(at, first.kill).read(answer)
                proof = await client.receipts(reader.bill.job)
            check_receipts(first.town, proof, reader.bill, dead=at > 32)
            assert reader.text == unbroken.text
            assert reader.bill.finish == unbroken.bill.finish == "stop"
            assert reader.notices >= 1
            await check_paid_once(first, await second.promised() - before, reader, unbroken.bill)

    asyncio.run(story())


def test_the_same_coordinator_goes_on_once_it_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        habits = Habits(length=LENGTH, pause=0.01)
        async with desks(tmp_path, "only", habits=habits) as (only,):
            api_key = await only.session()
            async with Client.through(only.url, api_key) as client:
                unbroken = await whole(client)
                paid = await only.promised()

                async def restart() -> None:
                    await only.kill()
                    there.append(await only.promised() - paid)
                    await only.start()
                    for host in only.town.hosts:
                        await only.welcome(host)

                there: list[int] = []
                reader = await Reader(30, restart).read(client.chat("storyteller", PROMPT, Options(seed=7)))
                assert reader.text == unbroken.text
                second = await only.promised() - paid - there[0]
                assert reader.bill.cost == unbroken.bill.cost
                rest = [n for n in range(LENGTH + 1) if attempt_amount(price(only.town), 0, n, LENGTH - n) == second]
                assert 0 < rest[0] < LENGTH
                prompt = unbroken.bill.prompt_tokens
                assert there[0] <= attempt_amount(price(only.town), prompt, 0, rest[0])

    asyncio.run(story())


def test_a_gateway_that_names_others_is_followed_to_them(tmp_path: Path) -> None:
    """Two programs that share sessions: the same keys are good at both."""

    async def story() -> None:
        habits = Habits(length=LENGTH, pause=0.01)
        async with desks(tmp_path, "first", "second", habits=habits) as (first, second):
            api_key = await first.session()
            terms = first.coordinator.gateway._terms
            first.coordinator.gateway._terms = msgspec.structs.replace(terms, gateways=(second.url,))
            second.coordinator.gateway._doorman = first.coordinator.sessions
            async with Client.through(first.url, api_key) as client:
                unbroken = await whole(client)
                reader = await Reader(10, first.kill).read(client.chat("storyteller", PROMPT, Options(seed=7)))
                assert reader.text == unbroken.text

    asyncio.run(story())


def test_without_another_gateway_the_answer_breaks_off_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        from lading.errors import GatewayError
        from lading.routes import passage

        monkeypatch.setattr(passage, "RECONNECT_SECONDS", 1.0)
        async with desks(tmp_path, "only", habits=Habits(length=LENGTH, pause=0.01)) as (only,):
            client = Client.through(only.url, await only.session())
            reader = Reader(10, only.kill)
            with pytest.raises(GatewayError) as caught:
                await reader.read(client.chat("storyteller", PROMPT, Options(seed=7)))
            assert caught.value.code == "net_gateway"
            assert len(reader.deltas) >= 10
            await client.close()

    asyncio.run(story())


def test_what_no_gateway_gave_is_refused_in_words(tmp_path: Path) -> None:
    async def story() -> None:
        import httpx

        async with desks(tmp_path, "only", habits=Habits(length=LENGTH)) as (only,):
            headers = {"authorization": f"Bearer {await only.session()}"}
            body = {"model": "storyteller", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 5}
            async with httpx.AsyncClient(base_url=only.url, headers=headers) as http:
                for wish, changes in (
                    ([1] * 6, {"stream": True}),
                    ([-1], {"stream": True}),
                    (["1"], {"stream": True}),
                    ([1], {}),
                    ([1], {"stream": True, "n": 2}),
                    ([1], {"stream": True, "tools": [{"type": "function", "function": {"name": "f"}}]}),
                ):
                    answer = await http.post("/chat/completions", json=body | changes | {"lading": {"emitted": wish}})
                    assert answer.status_code == 400, answer.text
                    assert answer.json()["error"]["message"]
                answer = await http.post("/chat/completions", json=body | {"lading": {"more": 1}})
                assert answer.status_code == 400

    asyncio.run(story())


def test_the_command_goes_on_at_the_other_coordinator_that_it_was_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story() -> None:
        from lading.cli.consume import Through, run

        async with desks(tmp_path, "only", habits=Habits(length=LENGTH)) as (only,):
            also = [f"{only.url}={await only.session()}"]
            nowhere = Through(base_url="http://127.0.0.1:1", home=str(tmp_path))
            with pytest.raises(LadingError):
                await run("storyteller", PROMPT, api_key="none", through=nowhere)
            assert await run("storyteller", PROMPT, api_key="none", also=also, through=nowhere) == 0
            with pytest.raises(BadSettings):
                await run("storyteller", PROMPT, api_key="none", also=[only.url], through=nowhere)

    asyncio.run(story())
    assert capsys.readouterr().out.count("fox") > 1
