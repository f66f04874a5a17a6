"""The JSON-RPC adapter when things go wrong on the way: the real EVM behind a transport that misbehaves."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import EmbeddedSettings, in_process
from lading_contracts.errors import (
    BadAbi,
    BadAnswer,
    BadDeployment,
    ChainError,
    ChainUnreachable,
    NotIncluded,
    Reverted,
    RpcFailed,
    TooWide,
    TxRefused,
    WrongChain,
)
from lading_contracts.rpc import RpcChain
from lading_contracts.transactions import Fees, Unsigned, sign
from lading_contracts.transports import Answer, InProcess
from lading_net.clock import run_virtual
from lading_protocol.ids import Address, to_hex
from unit.contracts_py.crooked import BOB, CHAIN_ID, FAUCET, HASH, QUICK, SLOW, Crooked, lose_once

T = TypeVar("T")


def run(work: Awaitable[T]) -> T:
    async def main() -> T:
        return await work

    return asyncio.run(main())


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


# --- garbage ---

GARBAGE: list[Any] = [None, 5, "", "0xzz", "0x1", [None], {}]
FAILED = {"eth_getTransactionReceipt": (Reverted,)}


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_garbage_is_a_chain_error_wherever_it_comes(line: Crooked, garbage: Any) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        head = await chain.block()
        assert head is not None
        await chain.send(FAUCET, BOB, b"", 7)
        sound = (await line.request("eth_getBlockByNumber", ["latest", False])).result
        receipt = (await line.request("eth_getTransactionReceipt", [sound["transactions"][0]])).result
        questions: dict[str, tuple[Any, Callable[[], Awaitable[Any]]]] = {
            "eth_getBlockByNumber": (sound, chain.block),
            "eth_call": ("0x", lambda: chain.call(BOB, b"")),
            "eth_getLogs": ([], lambda: chain.logs([BOB], 0, 1)),
            "eth_getBalance": ("0x0", lambda: chain.balance(BOB)),
            "eth_getCode": ("0x", lambda: chain.code(BOB)),
            "eth_estimateGas": ("0x5208", lambda: chain.send(FAUCET, BOB, b"", 7)),
            "eth_getTransactionCount": ("0x1", lambda: chain.send(FAUCET, BOB, b"", 7)),
            "eth_maxPriorityFeePerGas": ("0x1", lambda: chain.send(FAUCET, BOB, b"", 7)),
            "eth_sendRawTransaction": (HASH, lambda: chain.send(FAUCET, BOB, b"", 7)),
            "eth_getTransactionReceipt": (receipt, lambda: chain.send(FAUCET, BOB, b"", 7)),
        }
        for wanted, (whole, ask) in questions.items():
            parts = [{**whole, field: garbage} for field in whole] if isinstance(whole, dict) else []
            for answer in [garbage, *parts]:
                line.before = lambda method, _, wanted=wanted, answer=answer: (  # type: ignore[misc]
                    Answer(answer) if method == wanted else None
                )
                # A receipt whose status is garbage may say that the transaction failed.
                with contextlib.suppress(BadAnswer, NotIncluded, TxRefused, *FAILED.get(wanted, ())):
                    await ask()
                line.before = lambda _method, _params: None

    run_virtual(main())


@pytest.mark.parametrize("garbage", GARBAGE, ids=repr)
def test_an_endpoint_that_does_not_name_its_chain_is_not_believed(line: Crooked, garbage: Any) -> None:
    async def main() -> None:
        line.before = lambda method, _: Answer(garbage) if method == "eth_chainId" else None
        with pytest.raises(WrongChain):
            await RpcChain(line, CHAIN_ID, QUICK).send(FAUCET, BOB, b"", 7)
        assert not line.sent

    run_virtual(main())


@pytest.mark.parametrize("garbage", [5, "no", [], {"message": None}, {"data": "0xzz"}, {"code": 3, "data": {"a": 1}}])
def test_an_error_that_is_garbage_is_a_chain_error(line: Crooked, garbage: Any) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        await chain.block()
        line.before = lambda method, _: Answer(error=garbage) if method == "eth_call" else None
        with pytest.raises(ChainError):
            await chain.call(BOB, b"")

    run_virtual(main())


def test_the_answer_to_another_question_is_not_taken_for_this_one(line: Crooked) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, QUICK)
        await chain.send(FAUCET, BOB, b"", 7)
        newest = await line.request("eth_getBlockByNumber", ["latest", False])
        line.before = lambda method, _: newest if method == "eth_getBlockByNumber" else None
        with pytest.raises(BadAnswer, match="block 1 for the question after block 0"):
            await chain.block(0)
        line.before = lambda _method, _params: None
        receipt = await line.request("eth_getTransactionReceipt", [newest.result["transactions"][0]])
        line.before = lambda method, _: receipt if method == "eth_getTransactionReceipt" else None
        with pytest.raises(NotIncluded, match="the receipt of another transaction"):
            await chain.send(FAUCET, BOB, b"", 8)

    run_virtual(main())


# --- limits ---


@pytest.mark.parametrize(
    "words",
    [
        "query returned more than 10000 results. Try with this block range [0x1, 0x2].",
        "block range is too wide",
        "exceed maximum block range: 5000",
        "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range",
        "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range",
        "requested too many blocks from 0 to 20000, maximum is set to 2048",
        "Max range: 800",
        "ranges over 10000 blocks are not supported on freetier",
        "Block range limit exceeded",
        "query timed out",
    ],
)
def test_a_range_that_is_too_wide_is_told_apart(line: Crooked, words: str) -> None:
    async def main() -> None:
        line.before = lambda method, _: (
            Answer(error={"code": -32005, "message": words}) if method in ("eth_getLogs", "eth_call") else None
        )
        chain = RpcChain(line, CHAIN_ID, QUICK)
        with pytest.raises(TooWide):
            await chain.logs([BOB], 0, 9_999)
        with pytest.raises(RpcFailed) as caught:
            await chain.call(BOB, b"")
        assert not isinstance(caught.value, TooWide)

    run_virtual(main())


@pytest.mark.parametrize(
    "words", ["rate limit exceeded", "Too Many Requests", "daily request count exceeded, request rate limited"]
)
def test_a_busy_endpoint_is_asked_again(line: Crooked, words: str) -> None:
    async def main() -> None:
        chain = RpcChain(line, CHAIN_ID, SLOW)
        busy = {"code": -32005, "message": words}
        line.before = lambda method, _: (
            Answer(error=busy) if method == "eth_getBalance" and line.asked.count(method) < 3 else None
        )
        assert await chain.balance(BOB) == 0
        line.before = lambda _method, _params: Answer(error=busy)
        with pytest.raises(ChainUnreachable, match="busy"):
            await chain.balance(BOB)

    run_virtual(main())


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
