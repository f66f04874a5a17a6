"""Following events over the fake chain: restarts, confirmations, reorganisations, outages."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import msgspec
import pytest

from lading_contracts import events
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainUnreachable, Reverted
from lading_contracts.fake import FakeChain
from lading_contracts.follower import Cursor, Follower, Following
from lading_contracts.port import Log
from lading_protocol.keys import PrivateKey

T = TypeVar("T")
OWNER = PrivateKey(b"\x05" * 32)


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


async def a_chain() -> tuple[FakeChain, Contracts]:
    chain = FakeChain(lambda: 1_000.0)
    contracts = Contracts(chain, await deploy(chain, OWNER, Parameters.devnet()))
    await contracts.coin.approve(OWNER, contracts.settlement.address, 10**30)
    return chain, contracts


async def drain(follower: Follower, cursor: Cursor, seen: list[tuple[int, int]]) -> Cursor:
    """Keep `seen` = (block, amount) of deposits as a caller would, batch by batch."""
    while (batch := await follower.step(cursor)) is not None:
        if batch.undo_above is not None:
            seen[:] = [pair for pair in seen if pair[0] <= batch.undo_above]
        seen += [(e.block, e.event.amount) for e in batch.entries if isinstance(e.event, events.Deposited)]
        cursor = msgspec.json.decode(msgspec.json.encode(batch.cursor), type=Cursor)
    return cursor


def test_every_event_once_across_restarts_and_small_spans() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        names = contracts.deployment.names()
        cursor = Cursor(contracts.deployment.block)
        seen: list[tuple[int, int]] = []
        for amount in range(1, 10):
            await contracts.settlement.deposit(OWNER, amount)
            if amount % 3 == 0:
                cursor = await drain(Follower(chain, names, Following(span=2)), cursor, seen)
        assert [amount for _, amount in seen] == list(range(1, 10))

    run(main())


def test_confirmations_hold_events_back() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(confirmations=2))
        cursor = Cursor(contracts.deployment.block)
        seen: list[tuple[int, int]] = []
        await contracts.settlement.deposit(OWNER, 5)
        chain.mine()
        cursor = await drain(follower, cursor, seen)
        assert seen == []
        chain.mine()
        await drain(follower, cursor, seen)
        assert [amount for _, amount in seen] == [5]

    run(main())


def test_a_reorganisation_takes_events_back_and_brings_others() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(lag=0.0))
        cursor = Cursor(contracts.deployment.block)
        seen: list[tuple[int, int]] = []
        for amount in (1, 2, 3):
            await contracts.settlement.deposit(OWNER, amount)
            cursor = await drain(follower, cursor, seen)
        kept = seen[0][0]
        chain.rewind(kept)
        assert (await contracts.settlement.account(OWNER.address)).free == 1
        for amount in (20, 30, 40):
            await contracts.settlement.deposit(OWNER, amount)
        cursor = await drain(follower, cursor, seen)
        assert [amount for _, amount in seen] == [1, 20, 30, 40]
        chain.rewind(kept - 1)
        await drain(follower, cursor, seen)
        assert seen == []

    run(main())


def test_a_reorganisation_in_the_middle_of_a_question_gives_nothing_false() -> None:
    """The chain moves between the head and the events: the batch is dropped and asked for again."""

    class Moving(FakeChain):
        armed = False

        async def logs(self, *question: object) -> tuple[Log, ...]:
            found = await super().logs(*question)  # type: ignore[arg-type]
            if self.armed:
                self.armed = False
                self.rewind(len(self._blocks) - 2)
                self.mine()
            return found

    async def main() -> None:
        chain = Moving(lambda: 1_000.0)
        contracts = Contracts(chain, await deploy(chain, OWNER, Parameters.devnet()))
        await contracts.coin.approve(OWNER, contracts.settlement.address, 10**30)
        await contracts.settlement.deposit(OWNER, 9)
        chain.armed = True
        follower = Follower(chain, contracts.deployment.names())
        assert await follower.step(Cursor(contracts.deployment.block)) is None
        seen: list[tuple[int, int]] = []
        await drain(follower, Cursor(contracts.deployment.block), seen)
        assert seen == []

    run(main())


def test_an_outage_only_makes_following_wait() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(poll=0.0))
        chain.down = True
        with pytest.raises(ChainUnreachable):
            await follower.step(Cursor(contracts.deployment.block))
        batches = follower.follow(Cursor(contracts.deployment.block))
        first = asyncio.ensure_future(anext(batches))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not first.done()
        chain.down = False
        assert (await first).entries
        await batches.aclose()  # type: ignore[attr-defined]

    run(main())


def test_an_outage_while_a_transaction_is_on_its_way() -> None:
    """It is included; its sender hears of it when the chain is back. Nothing is sent twice."""

    async def main() -> None:
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)
            chain.down = len(waits) < 3

        chain = FakeChain(lambda: 1_000.0, sleep=sleep)
        contracts = Contracts(chain, await deploy(chain, OWNER, Parameters.devnet()))
        chain.inclusion_delay = 4.0
        chain.down = False
        receipt = await contracts.coin.transfer(OWNER, contracts.settlement.address, 5)
        assert waits == [4.0, 1.0, 1.0]
        assert await contracts.coin.balance(contracts.settlement.address) == 5
        assert receipt.nonce == 5

    run(main())


def test_a_refused_transaction_changes_nothing() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        head = await chain.block()
        with pytest.raises(Reverted, match="holds too few coins") as caught:
            await contracts.settlement.deposit(OWNER, 10**28)
        assert caught.value.name == "ERC20InsufficientBalance"
        assert await chain.block() == head
        assert (await contracts.settlement.account(OWNER.address)).free == 0

    run(main())
