"""Sending over JSON-RPC when things go wrong on the way: what is out, what is not, and what nobody knows yet."""

import asyncio
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any, TypeVar

import pytest

from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import (
    ChainError,
    ChainUnreachable,
    NotIncluded,
    Replaced,
    Reverted,
    TxRefused,
)
from lading_contracts.port import Signed
from lading_contracts.rpc import RpcChain, RpcSettings
from lading_contracts.transactions import Fees, Unsigned, read, sign
from lading_contracts.transports import Answer
from lading_net.clock import run_virtual
from lading_protocol.ids import AgentId, to_hex
from unit.contracts_py.crooked import BOB, CHAIN_ID, FAUCET, HASH, QUICK, SLOW, Crooked, lose_once

T = TypeVar("T")


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


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
        line.before = lambda method, _: Answer("0x1") if method == "eth_estimateGas" else None
        with pytest.raises(Reverted, match="gas ran out") as caught:
            await contracts.registry.register(FAUCET, AgentId(b"a" * 32))
        assert caught.value.name == ""

    run(main())


SEND = "eth_sendRawTransaction"


class Notes:
    """A note that keeps what it is told, as a ledger would."""

    def __init__(self) -> None:
        self.signed: list[Signed] = []

    async def __call__(self, signed: Signed) -> None:
        self.signed.append(signed)


def rival(line: Crooked, nonce: int = 0) -> str:
    """The same key sends something else under this nonce, past our adapter."""
    return to_hex(sign(Unsigned(CHAIN_ID, nonce, Fees(10**11, 1), 21_000, BOB, 1_000, b""), FAUCET).raw)


def test_what_is_signed_is_noted_before_it_is_broadcast(line: Crooked) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, SLOW)

        async def note(signed: Signed) -> None:
            assert not line.sent
            raise RuntimeError("the disk is full")

        with pytest.raises(RuntimeError):
            await chain.send(FAUCET, BOB, b"", 7, note=note)
        assert not line.sent
        notes = Notes()
        receipt = await chain.send(FAUCET, BOB, b"", 7, note=notes)
        assert [to_hex(one.raw) for one in notes.signed] == line.sent
        assert (notes.signed[0].hash, notes.signed[0].nonce) == (receipt.tx, 0)

    run_virtual(main())


@pytest.mark.parametrize("delivered", [True, False])
def test_a_broadcast_of_which_nothing_is_heard_is_unknown_and_resumed_as_the_same_bytes(
    line: Crooked, delivered: bool
) -> None:
    async def main() -> None:
        def dead(method: str, params: list[Any]) -> Answer | None:
            if method == SEND and delivered:
                asyncio.get_running_loop().create_task(line._inner.request(method, params))
            if line.sent:
                raise ChainUnreachable("Dead.")
            return None

        notes = Notes()
        line.before = dead
        with pytest.raises(NotIncluded, match="unknown"):
            await RpcChain(line, CHAIN_ID, SLOW).send(FAUCET, BOB, b"", 7, note=notes)
        with pytest.raises(ChainUnreachable):
            await RpcChain(line, CHAIN_ID, SLOW).resume(FAUCET, notes.signed)
        line.before = lambda _method, _params: None
        again = RpcChain(line, CHAIN_ID, SLOW)  # another life, which remembers no nonce
        for _ in range(2):
            assert (await again.resume(FAUCET, notes.signed, notes)).tx == notes.signed[0].hash
        assert (len(notes.signed), len(set(line.sent))) == (1, 1)
        assert await again.balance(BOB) == 7

    run_virtual(main())


def test_a_lost_answer_and_a_lagging_server_never_make_a_second_transaction(line: Crooked) -> None:
    """The broadcast arrives, its answer is lost, and the next server says "nonce too low" but knows no such hash."""

    async def main() -> None:
        behind = 3

        def lag(method: str, _params: list[Any]) -> Answer | None:
            nonlocal behind
            if method == "eth_getTransactionReceipt" and behind:
                behind -= 1
                return Answer(None)
            return None

        line.before = lag
        lose_once(line, SEND)
        receipt = await RpcChain(line, CHAIN_ID, SLOW).send(FAUCET, BOB, b"", 7)
        assert (receipt.nonce, len(set(line.sent))) == (0, 1)
        assert int((await line.request("eth_getTransactionCount", [to_hex(FAUCET.address)])).result, 16) == 1

    run_virtual(main())


@pytest.mark.parametrize("resumed", [False, True])
def test_a_nonce_that_another_transaction_took_is_reported_when_it_is_sure(line: Crooked, resumed: bool) -> None:
    async def main() -> None:
        chain, notes = RpcChain(line, CHAIN_ID, SLOW), Notes()

        def swallow(method: str, params: list[Any]) -> Answer | None:
            return Answer(HASH) if method == SEND and params[0] != other else None

        other = rival(line)
        line.before = swallow
        sending = asyncio.ensure_future(chain.send(FAUCET, BOB, b"", 7, note=notes))
        await asyncio.sleep(5.0)
        if resumed:
            sending.cancel()
            line.before = lambda _method, _params: None
        await line.request(SEND, [other])
        began = asyncio.get_running_loop().time()
        with pytest.raises(Replaced, match="took nonce 0"):
            await (chain.resume(FAUCET, notes.signed, notes) if resumed else sending)
        assert asyncio.get_running_loop().time() - began >= SLOW.sure_after
        assert await chain.balance(BOB) == 1_000

    run_virtual(main())


def test_a_nonce_that_is_taken_at_the_start_is_no_obstacle(line: Crooked) -> None:
    """Nothing was lost, so the endpoint's no is a no: the next nonce is used, and noted."""

    async def main() -> None:
        chain, notes = RpcChain(line, CHAIN_ID, SLOW), Notes()
        await line.request(SEND, [rival(line)])
        counts = 0

        def lag(method: str, _params: list[Any]) -> Answer | None:
            nonlocal counts
            counts += method == "eth_getTransactionCount"
            return Answer("0x0") if method == "eth_getTransactionCount" and counts == 1 else None

        line.before = lag
        assert (await chain.send(FAUCET, BOB, b"", 7, note=notes)).nonce == 1
        assert [one.nonce for one in notes.signed] == [0, 1]
        assert await chain.balance(BOB) == 1_007

    run_virtual(main())


def test_a_missing_nonce_below_is_filled(line: Crooked) -> None:
    """What came before was forgotten with a block that was taken back: ours could wait for ever."""

    async def main() -> None:
        notes = Notes()
        chain = RpcChain(line, CHAIN_ID, SLOW)
        snapshot = (await line.request("evm_snapshot", [])).result
        await chain.send(FAUCET, BOB, b"", 1)
        second = await chain.send(FAUCET, BOB, b"", 7, note=notes)
        await line.request("evm_revert", [snapshot])
        found = await RpcChain(line, CHAIN_ID, SLOW).resume(FAUCET, notes.signed, notes)
        assert found.nonce == second.nonce == 1
        assert found.tx in {one.hash for one in notes.signed}
        assert await chain.balance(BOB) == 7

    run_virtual(main())


def test_a_block_that_is_taken_back_is_one_more_reason_to_resume(line: Crooked) -> None:
    async def main() -> None:
        chain, notes = RpcChain(line, CHAIN_ID, SLOW), Notes()
        snapshot = (await line.request("evm_snapshot", [])).result
        first = await chain.send(FAUCET, BOB, b"", 7, note=notes)
        await line.request("evm_revert", [snapshot])
        await line.request("evm_mine", [])
        assert await chain.balance(BOB) == 0
        again = await chain.resume(FAUCET, notes.signed, notes)
        assert (again.tx, again.block) == (first.tx, first.block + 1)
        assert await chain.balance(BOB) == 7

    run_virtual(main())


def test_fees_rise_with_the_market_and_end_at_the_limit(line: Crooked) -> None:
    async def main() -> None:
        limit = 4 * 10**9
        settings = RpcSettings(inclusion_timeout=100.0, raise_fees_after=10.0, poll=2.0, most_fee=limit)
        chain, notes = RpcChain(line, CHAIN_ID, settings), Notes()
        line.before = lambda method, _: Answer(HASH) if method == SEND else None
        with pytest.raises(NotIncluded):
            await chain.send(FAUCET, BOB, b"", 7, note=notes)
        fees = [read(one.raw)[0].fees for one in notes.signed]
        assert [one.most for one in fees] == sorted({one.most for one in fees})
        assert fees[-1].most == limit
        assert all(after.tip * 10 >= before.tip * 11 or after.most == limit for before, after in pairwise(fees))
        assert {one.nonce for one in notes.signed} == {0}
        assert len(line.sent) > len(notes.signed)  # at the limit the same bytes go out again
        line.before = lambda method, _: Answer(hex(10**30)) if method == "eth_maxPriorityFeePerGas" else None
        await chain.send(FAUCET, BOB, b"", 7, note=notes)
        assert read(notes.signed[-1].raw)[0].fees == Fees(limit, limit)

    run_virtual(main())


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("transaction underpriced", None),
        ("max fee per gas less than block base fee: address 0x0", None),
        ("replacement transaction underpriced", None),
        ("nonce too low", None),
        ("intrinsic gas too low", TxRefused),
        ("exceeds block gas limit", TxRefused),
        ("insufficient funds for gas * price + value", ChainError),
    ],
)
def test_a_refusal_that_can_be_bettered_is_and_another_is_told(line: Crooked, words: str, error: Any) -> None:
    async def main() -> None:
        chain, notes = RpcChain(line, CHAIN_ID, SLOW), Notes()

        def refuse(method: str, _params: list[Any]) -> Answer | None:
            return Answer(error={"code": -32000, "message": words}) if method == SEND and len(line.sent) == 1 else None

        line.before = refuse
        if error is None:
            assert (await chain.send(FAUCET, BOB, b"", 7, note=notes)).tx == notes.signed[-1].hash
            assert await chain.balance(BOB) == 7
        else:
            with pytest.raises(error):
                await chain.send(FAUCET, BOB, b"", 7, note=notes)
            assert len(line.sent) == 1

    run_virtual(main())


def test_an_endpoint_without_a_tip_method_is_good_enough(line: Crooked) -> None:
    async def main() -> None:
        no = {"code": -32601, "message": "the method eth_maxPriorityFeePerGas does not exist"}
        line.before = lambda method, _: Answer(error=no) if method == "eth_maxPriorityFeePerGas" else None
        await RpcChain(line, CHAIN_ID, SLOW).send(FAUCET, BOB, b"", 7)

    run_virtual(main())
