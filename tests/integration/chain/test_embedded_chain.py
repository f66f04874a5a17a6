"""The real contracts over real sockets: the whole road of the money; kills, outages, rivals, other tools."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from integration.chain.served import CHAIN_ID, QUICK, Chain, require_anvil, run
from lading_contracts import abi, commands, deployment
from lading_contracts.commands import Endpoint
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import EmbeddedChain, EmbeddedSettings, faucet_key
from lading_contracts.errors import (
    BadDeployment,
    ChainFolderBusy,
    ChainUnreachable,
    NoFunds,
    NotIncluded,
    PortInUse,
    Reverted,
    RpcFailed,
    WrongChain,
)
from lading_contracts.rpc import RpcChain, open_chain
from lading_protocol.ids import Wei, to_hex
from lading_protocol.keys import PrivateKey
from property.chain_kit import FAUCET, PARAMETERS, key


def test_a_kill_loses_no_block(served: Chain) -> None:
    """SIGKILL while transactions pour in: what was acknowledged is there, the books balance, the chain goes on."""

    async def pour(acknowledged: list[int]) -> None:
        chain = served.open()
        for _ in range(12):
            acknowledged.append((await chain.send(FAUCET, key("alice").address, b"", 1)).nonce)
        on_its_way = asyncio.ensure_future(chain.send(FAUCET, key("alice").address, b"", 1))
        await asyncio.sleep(0.004)
        os.kill(served.process.pid, signal.SIGKILL)
        with contextlib.suppress(ChainUnreachable, NotIncluded):  # not sent, or sent and nobody knows
            await on_its_way
        await chain.close()

    async def look(chain: RpcChain) -> tuple[int, int, bytes]:
        head = await chain.block()
        assert head is not None
        parent = await chain.block(head.number - 1)
        assert parent is not None
        assert parent.hash == head.parent
        await chain.send(FAUCET, key("alice").address, b"", 1)
        found = (head.number, await chain.balance(key("alice").address), head.hash)
        await chain.close()
        return found

    acknowledged: list[int] = []
    run(pour(acknowledged))
    served.process.communicate(timeout=20)
    again = Chain(served.folder)
    try:
        number, balance, _ = run(look(again.open()))
        assert acknowledged == list(range(12))
        assert number >= 12
        assert balance == number + 1
    finally:
        assert again.end() == 0


def test_sends_at_once_from_one_key_and_from_two_programs(served: Chain) -> None:
    async def main() -> None:
        one, two = served.open(), served.open()
        to = key("bob").address
        sends = [chain.send(FAUCET, to, b"", 1) for chain in (one, two) for _ in range(10)]
        receipts = await asyncio.gather(*sends)
        assert sorted(receipt.nonce for receipt in receipts) == list(range(20))
        assert await one.balance(to) == 20
        await one.close()
        await two.close()

    run(main())


def test_an_outage_and_the_return(served: Chain) -> None:
    async def before(chain: RpcChain) -> None:
        await chain.send(FAUCET, key("bob").address, b"", 1)
        await chain.close()

    async def during_and_after(port: int) -> None:
        chain = open_chain(f"http://127.0.0.1:{port}", CHAIN_ID, QUICK)
        with pytest.raises(ChainUnreachable, match="does not answer"):
            await chain.block()
        back = await asyncio.to_thread(Chain, served.folder, port)
        try:
            await chain.send(FAUCET, key("bob").address, b"", 1)
            assert await chain.balance(key("bob").address) == 2
        finally:
            await chain.close()
            await asyncio.to_thread(back.end)

    run(before(served.open()))
    port = served.port
    assert served.end() == 0
    run(during_and_after(port))


def test_a_second_process_and_a_second_chain_id_are_refused(served: Chain, tmp_path: Path) -> None:
    rival = Chain(served.folder)
    assert rival.url == ""
    _, words = rival.process.communicate(timeout=20)
    assert rival.process.returncode == 1
    assert words.startswith("chain_folder_busy: Another process is running the embedded chain in")

    async def main() -> None:
        with pytest.raises(ChainFolderBusy):
            await EmbeddedChain.start(EmbeddedSettings(folder=served.folder, chain_id=CHAIN_ID))
        with pytest.raises(PortInUse, match=f"Port {served.port}"):
            await EmbeddedChain.start(EmbeddedSettings(port=served.port))
        await (await EmbeddedChain.start(EmbeddedSettings(folder=tmp_path / "b", chain_id=5))).stop()
        with pytest.raises(BadDeployment, match="holds a chain with id 5, not 6"):
            await EmbeddedChain.start(EmbeddedSettings(folder=tmp_path / "b", chain_id=6))

    run(main())


def test_the_wrong_chain_is_refused_before_anything_is_signed(served: Chain) -> None:
    async def main() -> None:
        chain = open_chain(served.url, 1, QUICK)
        with pytest.raises(WrongChain, match=f"serves chain {CHAIN_ID}, the settings say 1"):
            await chain.send(FAUCET, key("bob").address, b"", 1)
        await chain.close()

    run(main())


def test_refusals_of_the_endpoint_are_clear(served: Chain) -> None:
    async def main() -> None:
        chain = served.open()
        with pytest.raises(NoFunds, match=to_hex(key("pauper").address)):
            await chain.send(key("pauper"), key("bob").address, b"", 0)
        with pytest.raises(RpcFailed, match="no method eth_hashrate"):
            await chain.request("eth_hashrate", [])
        with pytest.raises(RpcFailed, match="bad parameters"):
            await chain.request("eth_getBalance", ["0xzz"])
        assert await chain.block(10**6) is None
        await chain.close()

        for request, status in (
            (b"GET / HTTP/1.1\r\n\r\n", b"405"),
            (b"POST / HTTP/1.1\r\n\r\n", b"411"),
            (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
            (b"POST / HTTP/1.1\r\nOrigin: https://evil.example\r\nContent-Length: 2\r\n\r\n{}", b"403"),
            (b"POST / HTTP/1.1\r\nx: " + b"y" * 20_000, b"431"),
            (b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\n{", b"200"),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(request)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 " + status)
            writer.close()
        assert b"-32700" in answer

    run(main())


def test_a_server_that_is_no_chain() -> None:
    async def main() -> None:
        async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\n<ht>")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(page, "127.0.0.1", 0)
        chain = open_chain(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", 1, QUICK)
        with pytest.raises(RpcFailed, match="not JSON-RPC"):
            await chain.block()
        await chain.close()
        server.close()

    run(main())


def test_web3_works_against_it(served: Chain) -> None:
    """Any EVM tool must: here web3.py with its own signing, contract objects and event filters."""

    async def main() -> None:
        from web3 import AsyncHTTPProvider, AsyncWeb3
        from web3.middleware import SignAndSendRawMiddlewareBuilder

        path = served.folder / "record.json"
        record = await commands.chain_deploy(Endpoint(served.url, CHAIN_ID), FAUCET, path, PARAMETERS)
        assert deployment.load(path) == record
        document = json.loads((Path(abi.__file__).parent / "abi" / "AICoin.json").read_text())
        w3 = AsyncWeb3(AsyncHTTPProvider(served.url))
        w3.middleware_onion.inject(SignAndSendRawMiddlewareBuilder.build(FAUCET.secret), layer=0)
        coin = w3.eth.contract(address=w3.to_checksum_address(record.coin), abi=document["abi"])
        sender, bob = (w3.to_checksum_address(who.address) for who in (FAUCET, key("bob")))
        tx = await coin.functions.transfer(bob, 77).transact({"from": sender})
        done = await w3.eth.wait_for_transaction_receipt(tx)
        assert done["status"] == 1
        assert await coin.functions.balanceOf(bob).call() == 77
        (event,) = await coin.events.Transfer.get_logs(from_block=done["blockNumber"])
        assert event["args"]["value"] == 77
        assert (await w3.eth.get_transaction(tx))["hash"] == tx
        block = await w3.eth.get_block("latest", full_transactions=True)
        assert [cast(Any, one)["hash"] for one in block["transactions"]] == [tx]
        assert (await w3.eth.fee_history(2, "latest"))["baseFeePerGas"][-1] > 0
        await w3.provider.disconnect()

    run(main())


def test_time_passes_without_transactions() -> None:
    async def main() -> None:
        seconds = [1_800_000_000.0]
        chain = await EmbeddedChain.start(EmbeddedSettings(block_time=0.02), clock=lambda: seconds[0])
        client = open_chain(chain.url, chain.chain_id, QUICK)
        seconds[0] += 100
        for _ in range(200):
            head = await client.block()
            assert head is not None
            if head.number > 0:
                break
            await asyncio.sleep(0.01)
        assert head is not None
        assert head.timestamp == 1_800_000_100
        await client.close()
        await chain.stop()

    run(main())


def test_the_commands(tmp_path: Path) -> None:
    async def main() -> None:
        chain = await commands.chain_up(EmbeddedSettings(folder=tmp_path / "chain"))
        endpoint = Endpoint(chain.url, chain.chain_id)
        record = await commands.chain_deploy(endpoint, chain.faucet, tmp_path / "record.json", Parameters.devnet())
        report = await commands.chain_faucet(endpoint, chain.faucet, key("bob").address, record, coins=Wei(5))
        assert (report.gas, report.coins, len(report.transactions)) == (10**19, 5, 2)
        status = await commands.chain_status(endpoint, record)
        assert status.reachable
        assert [row.present for row in status.contracts] == [True] * 12
        assert (status.governors, status.timelock_delay) == ((chain.faucet.address,), 60)
        assert [one.problem for one in await commands.chain_verify(endpoint, record)] == [""] * 12
        assert status.supply == Parameters().supply
        wrong = msgspec.structs.replace(record, court=key("bob").address)
        assert (await commands.chain_status(endpoint, wrong)).problem == "A contract is missing."
        await chain.stop()
        gone = await commands.chain_status(endpoint, record)
        assert not gone.reachable
        assert "does not answer" in gone.problem

    run(main())


def test_anvil_is_the_same_to_us(tmp_path: Path) -> None:
    require_anvil()

    async def use(url: str, owner: PrivateKey) -> None:
        client = open_chain(url, CHAIN_ID, QUICK)
        contracts = Contracts(client, await deploy(client, owner, Parameters.devnet()))
        await contracts.coin.approve(owner, contracts.settlement.address, 10)
        await contracts.settlement.deposit(owner, 10)
        with pytest.raises(Reverted) as caught:
            await contracts.settlement.deposit(owner, 10)
        assert caught.value.name == "ERC20InsufficientAllowance"
        with pytest.raises(NoFunds):
            await client.send(key("pauper"), key("bob").address, b"", 0)
        await client.close()

    async def main() -> None:
        chain = await commands.chain_up(EmbeddedSettings(folder=tmp_path, chain_id=CHAIN_ID), use_anvil=True)
        try:
            assert chain.faucet.address == faucet_key("lading").address
            await use(chain.url, chain.faucet)
            await use(chain.url.replace("http", "ws"), chain.faucet)
        finally:
            await chain.stop()
        client = open_chain(chain.url, CHAIN_ID, QUICK)
        with pytest.raises(ChainUnreachable):
            await client.block()
        await client.close()

    run(main())


def test_the_chain_ends_with_the_process_that_started_it() -> None:
    """Its parent is killed without a chance to clean up."""
    start = [sys.executable, "-m", "lading_contracts.embedded", "--with-parent"]
    code = f"import subprocess; subprocess.Popen({start!r}).wait()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert json.loads(parent.stdout.readline())["url"]
    parent.kill()
    parent.wait(timeout=20)
    assert parent.stdout.read() == ""  # the end of the pipe: the child, its last holder, is gone
    parent.stdout.close()


def test_the_port_is_free_again_after_stop() -> None:
    async def main() -> int:
        chain = await EmbeddedChain.start(EmbeddedSettings())
        client = open_chain(chain.url, chain.chain_id, QUICK)
        await client.block()
        await chain.stop()
        await client.close()
        return int(chain.url.rsplit(":", 1)[1])

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", run(main())))
