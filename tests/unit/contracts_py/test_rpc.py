"""The JSON-RPC adapter when things go wrong on the way: the real EVM behind a transport that misbehaves."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import EmbeddedSettings, faucet_key, in_process
from lading_contracts.errors import BadAbi, BadDeployment, ChainUnreachable, NotIncluded, Reverted
from lading_contracts.rpc import RpcChain, RpcSettings
from lading_contracts.transactions import Fees, Unsigned, sign
from lading_contracts.transports import Answer, InProcess
from lading_protocol.ids import Address, to_hex
from lading_protocol.keys import PrivateKey

T = TypeVar("T")
HASH = "0x" + "77" * 32
CHAIN_ID = 31_339
FAUCET = faucet_key("lading")
BOB = PrivateKey(b"\x0b" * 32).address
QUICK = RpcSettings(attempts=3, backoff=0.0, poll=0.001, inclusion_timeout=0.2, raise_fees_after=0.05)

Trick = Callable[[str, list[Any]], Answer | None]


class Crooked:
    """A transport in front of the real one: `before` may answer instead of it, `after` may lose an answer."""

    def __init__(self, inner: InProcess) -> None:
        self._inner = inner
        self.before: Trick = lambda _method, _params: None
        self.after: Callable[[str], None] = lambda _method: None
        self.asked: list[str] = []
        self.sent: list[str] = []

    async def request(self, method: str, params: list[Any]) -> Answer:
        self.asked.append(method)
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        instead = self.before(method, params)
        if instead is not None:
            return instead
        answer = await self._inner.request(method, params)
        self.after(method)
        return answer

    async def close(self) -> None:
        await self._inner.close()


@pytest.fixture
def line() -> Iterator[Crooked]:
    answerer = in_process(EmbeddedSettings(chain_id=CHAIN_ID, block_time=0))
    yield Crooked(InProcess(answerer))
    answerer.close()


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


def lose_once(line: Crooked, method: str) -> None:
    lost: list[str] = []

    def after(asked: str) -> None:
        if asked == method and not lost:
            lost.append(asked)
            raise ChainUnreachable("The answer was lost.")

    line.after = after


@pytest.mark.parametrize(
    "method",
    [
        "eth_chainId",
        "eth_estimateGas",
        "eth_getTransactionCount",
        "eth_sendRawTransaction",
        "eth_getTransactionReceipt",
    ],
)
def test_a_lost_answer_never_pays_twice(line: Crooked, method: str) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        lose_once(line, method)
        receipt = await chain.send(FAUCET, BOB, b"", 7)
        assert receipt.nonce == 0
        assert await chain.balance(BOB) == 7
        assert len(set(line.sent)) == 1

    run(main())


def test_after_a_lost_connection_the_chain_is_identified_again(line: Crooked) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        await chain.block()
        await chain.block()
        assert line.asked.count("eth_chainId") == 1
        lose_once(line, "eth_getBlockByNumber")
        await chain.block()
        assert line.asked.count("eth_chainId") == 2

    run(main())


def test_a_transaction_that_no_block_takes_is_offered_more_and_then_reported(line: Crooked) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        line.before = lambda method, _: Answer(HASH) if method == "eth_sendRawTransaction" else None
        with pytest.raises(NotIncluded, match="No block took") as caught:
            await chain.send(FAUCET, BOB, b"", 7)
        assert len(set(line.sent)) >= 2
        assert len(caught.value.tx) == 32
        line.before = lambda _method, _params: None
        for raw in line.sent[:1]:
            await line.request("eth_sendRawTransaction", [raw])
        assert await chain.balance(BOB) == 7

    run(main())


def test_a_dearer_rival_that_is_taken_is_the_transaction(line: Crooked) -> None:
    """The first broadcast is swallowed, the second with raised fees gets through."""

    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)

        def swallow(method: str, _params: list[Any]) -> Answer | None:
            return Answer(HASH) if method == "eth_sendRawTransaction" and len(line.sent) == 1 else None

        line.before = swallow
        receipt = await chain.send(FAUCET, BOB, b"", 7)
        assert (receipt.nonce, len(line.sent)) == (0, 2)
        assert await chain.balance(BOB) == 7

    run(main())


def test_a_failure_that_no_estimate_saw_is_explained(line: Crooked) -> None:
    """Another transaction came first: the block took ours and it failed. The reason comes from a replay."""

    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        contracts = Contracts(chain, await deploy(chain, FAUCET, Parameters.devnet()))
        line.before = lambda method, _: Answer("0x30d40") if method == "eth_estimateGas" else None
        with pytest.raises(Reverted, match="allowance is too small") as caught:
            await contracts.settlement.deposit(FAUCET, 5)
        assert caught.value.name == "ERC20InsufficientAllowance"
        assert caught.value.tx is not None
        line.before = lambda method, _: Answer("0x5dc0") if method == "eth_estimateGas" else None
        with pytest.raises(Reverted, match="gas ran out") as caught:
            await contracts.coin.approve(FAUCET, contracts.settlement.address, 5)
        assert caught.value.name == ""

    run(main())


def test_another_transaction_during_the_deployment_is_noticed() -> None:
    """Staking would name a court that is never created there: the deployment must not be handed out."""
    answerer = in_process(EmbeddedSettings(chain_id=CHAIN_ID, block_time=0))
    line = Crooked(InProcess(answerer))
    rival = sign(Unsigned(CHAIN_ID, 3, Fees(10**10, 1), 21_000, BOB, 1, b""), FAUCET)

    def intrude(method: str, _params: list[Any]) -> Answer | None:
        if method == "eth_estimateGas" and line.asked.count(method) == 4:
            assert "result" in answerer.request("eth_sendRawTransaction", [to_hex(rival.raw)])
        return None

    line.before = intrude
    with pytest.raises(BadDeployment, match="another transaction meanwhile"):
        run(deploy(RpcChain(line, CHAIN_ID, QUICK), FAUCET, Parameters.devnet()))
    answerer.close()


def test_an_address_without_a_contract_is_named_as_such(line: Crooked) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        record = await deploy(chain, FAUCET, Parameters.devnet())
        moved = Contracts(chain, type(record)(**{**_fields(record), "settlement": Address(b"\x09" * 20)}))
        with pytest.raises(BadAbi, match="0 bytes from the chain"):
            await moved.settlement.account(BOB)
        with pytest.raises(BadDeployment, match="no Settlement at 0x0909"):
            await moved.check()

    run(main())


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
