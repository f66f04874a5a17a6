"""Following events over the fake chain: restarts, confirmations, reorganisations, outages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
import pytest

from lading_contracts import events
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainUnreachable, Reverted, TooWide
from lading_contracts.fake import FakeChain
from lading_contracts.follower import Cursor, Follower, Following
from lading_contracts.port import Block, Log
from lading_net.clock import run_virtual
from lading_protocol.ids import Address
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


def test_a_reorganisation_below_all_marks_takes_everything_back_and_reads_it_again() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(span=1, lag=0.0))
        cursor = Cursor(contracts.deployment.block)
        seen: list[tuple[int, int]] = []
        for amount in range(1, 90):
            await contracts.settlement.deposit(OWNER, amount)
        cursor = await drain(follower, cursor, seen)
        assert len(cursor.marks) < 89, "the marks reach below the first deposit: the test proves nothing"
        chain.rewind(seen[0][0])
        for amount in range(100, 195):
            await contracts.settlement.deposit(OWNER, amount)
        batch = await follower.step(cursor)
        assert batch is not None
        assert batch.undo_above == contracts.deployment.block - 1
        await drain(follower, cursor, seen)
        assert [amount for _, amount in seen] == [1, *range(100, 195)]

    run(main())


class Balanced(FakeChain):
    """Servers behind one address: each question in turn meets one that is `behind` by so many blocks."""

    behind: tuple[int, ...] = (0,)
    asked = 0
    widest = 0

    def _head(self) -> int:
        self.asked += 1
        return len(self._blocks) - 1 - self.behind[self.asked % len(self.behind)]

    async def block(self, number: int | None = None) -> Block | None:
        head = self._head()
        if number is not None and number > head:
            return None
        return await super().block(head if number is None else number)

    async def logs(self, addresses: Sequence[Address], first: int, last: int) -> tuple[Log, ...]:
        head = self._head()
        if self.widest and last - first + 1 > self.widest:
            raise TooWide("block range is too wide")
        return await super().logs(addresses, first, min(last, head))


async def a_balanced_chain(clock: Callable[[], float] = lambda: 1_000.0) -> tuple[Balanced, Contracts]:
    chain = Balanced(clock)
    contracts = Contracts(chain, await deploy(chain, OWNER, Parameters.devnet()))
    await contracts.coin.approve(OWNER, contracts.settlement.address, 10**30)
    return chain, contracts


@pytest.mark.parametrize("behind", [(0, 2), (2, 0, 1), (3, 0, 0, 1, 2), (1, 1, 3)])
def test_servers_that_lag_take_nothing_back_and_hide_nothing(behind: tuple[int, ...]) -> None:
    async def main() -> None:
        chain, contracts = await a_balanced_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(confirmations=3))
        cursor, seen = Cursor(contracts.deployment.block), list[tuple[int, int]]()
        chain.behind = behind
        for amount in range(1, 40):
            await contracts.settlement.deposit(OWNER, amount)
            for _ in range(3):
                if (batch := await follower.step(cursor)) is not None:
                    assert batch.undo_above is None
                    seen += [(e.block, e.event.amount) for e in batch.entries if isinstance(e.event, events.Deposited)]
                    cursor = batch.cursor
        chain.behind = (0,)
        chain.mine(3)
        await drain(follower, cursor, seen)
        assert [amount for _, amount in seen] == list(range(1, 40))

    run(main())


def test_a_chain_that_stays_shorter_has_become_shorter() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(lag=30.0))
        seen: list[tuple[int, int]] = []
        await contracts.settlement.deposit(OWNER, 1)
        cursor = await drain(follower, Cursor(contracts.deployment.block), seen)
        chain.rewind(seen[0][0] - 1)
        assert await follower.step(cursor) is None
        await asyncio.sleep(29.0)
        assert await follower.step(cursor) is None
        await asyncio.sleep(2.0)
        await drain(follower, cursor, seen)
        assert seen == []

    run_virtual(main())


def test_a_chain_that_was_shorter_for_a_moment_and_then_another_is_undone_at_once() -> None:
    async def main() -> None:
        chain, contracts = await a_chain()
        follower = Follower(chain, contracts.deployment.names())
        seen: list[tuple[int, int]] = []
        await contracts.settlement.deposit(OWNER, 1)
        cursor = await drain(follower, Cursor(contracts.deployment.block), seen)
        chain.rewind(seen[0][0] - 1)
        assert await follower.step(cursor) is None
        chain.mine(2)
        await drain(follower, cursor, seen)
        assert seen == []

    run(main())


@pytest.mark.parametrize("widest", [1, 3, 7, 100])
def test_an_endpoint_that_bears_less_is_asked_less_and_that_is_remembered(widest: int) -> None:
    async def main() -> None:
        chain, contracts = await a_balanced_chain()
        for amount in range(1, 60):
            await contracts.settlement.deposit(OWNER, amount)
        chain.widest = widest
        follower = Follower(chain, contracts.deployment.names(), Following(span=50))
        seen: list[tuple[int, int]] = []
        cursor = await drain(follower, Cursor(contracts.deployment.block), seen)
        assert [amount for _, amount in seen] == list(range(1, 60))
        for amount in range(60, 120):
            await contracts.settlement.deposit(OWNER, amount)
        refused: list[str] = []
        bear = chain.logs

        async def logs(*question: object) -> tuple[Log, ...]:
            try:
                return await bear(*question)  # type: ignore[arg-type]
            except TooWide as error:
                refused.append(str(error))
                raise

        chain.logs = logs  # type: ignore[method-assign, assignment]
        await drain(follower, cursor, seen)
        assert [amount for _, amount in seen] == list(range(1, 120))
        assert refused == []

    run(main())


def test_an_endpoint_that_bears_not_even_one_block_is_named() -> None:
    async def main() -> None:
        chain, contracts = await a_balanced_chain()
        chain.mine(5)

        async def logs(*question: object) -> tuple[Log, ...]:
            raise TooWide("query returned more than 10000 results")

        chain.logs = logs  # type: ignore[method-assign]
        with pytest.raises(TooWide, match="10000"):
            await Follower(chain, contracts.deployment.names()).step(Cursor(contracts.deployment.block))

    run(main())


def test_a_reorganisation_below_the_marks_while_many_blocks_are_read_is_seen() -> None:
    """The last block kept goes between the first question and the last: nothing of either chain is taken."""

    async def main() -> None:
        chain, contracts = await a_balanced_chain()
        follower = Follower(chain, contracts.deployment.names(), Following(lag=0.0))
        seen: list[tuple[int, int]] = []
        await contracts.settlement.deposit(OWNER, 1)
        cursor = await drain(follower, Cursor(contracts.deployment.block), seen)
        for amount in (2, 3, 4):
            await contracts.settlement.deposit(OWNER, amount)
        still_true = follower._still_true

        async def then_moving(*question: object) -> object:
            found = await still_true(*question)  # type: ignore[arg-type]
            chain.rewind(seen[0][0] - 1)
            for amount in (10, 20, 30, 40):
                await contracts.settlement.deposit(OWNER, amount)
            return found

        follower._still_true = then_moving  # type: ignore[method-assign, assignment]
        assert await follower.step(cursor) is None
        follower._still_true = still_true  # type: ignore[method-assign]
        await drain(follower, cursor, seen)
        assert [amount for _, amount in seen] == [10, 20, 30, 40]

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
        assert receipt.nonce == 12

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
