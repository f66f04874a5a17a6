"""The node as its operator runs it: a process of its own, real links, the real engine, the real contracts.

One node serves one job, is killed with SIGKILL before and while it redeems, comes back and is paid to the wei.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factories import chat_request, key
from integration.net_direct.raw import call_in_vain
from lading import publisher, release
from lading.blobs import BlobStore, serve_blobs
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import faucet_key
from lading_contracts.rpc import open_chain
from lading_contracts.settlement import ChannelKey
from lading_net.direct import DirectTransport
from lading_protocol.ids import to_hex
from lading_protocol.messages import BLOB
from simulation.node_world import COIN, Gateway

CHAIN_ID = 31_339
AGENT_FOLDER = Path(__file__).parents[3] / "agents" / "chat"


class Program:
    """A process that prints one JSON line when it is ready."""

    def __init__(self, *command: str, log: Path, environment: dict[str, str] | None = None) -> None:
        self._log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **(environment or {})},
            )

    def ready(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self._log.read_text()[-3000:]
        tree: dict[str, Any] = json.loads(line)
        return tree

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=30)
        return self.process.returncode


class Shore:
    def __init__(self, record) -> None:
        self.record = record

    def now(self) -> float:
        return time.time()


class Harbour:
    """The chain and the programs of one test, in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []
        chain = self.start(
            "-m",
            "lading_contracts.embedded",
            *("--folder", str(folder / "chain"), "--port", "0", "--chain-id", str(CHAIN_ID), "--block-time", "1"),
            name="chain",
        )
        self.url = chain.ready()["url"]

    def start(self, *command: str, name: str) -> Program:
        program = Program(*command, log=self.folder / f"{name}.log", environment={"LADING_SETTINGS": ""})
        self.programs.append(program)
        return program

    def node(self, *more: str, name: str = "node") -> Program:
        call = "import os, sys; os.environ.pop('LADING_SETTINGS'); from lading.cli.main import main; sys.exit(main())"
        return self.start(
            *("-c", call, "node", "up", "--json", "--data", str(self.folder / name), "--gossip-listen", ""),
            *("--deployment", str(self.folder / "deployment.json"), "--chain-url", self.url, "--http", "0"),
            *("--listen", "/ip4/127.0.0.1/tcp/0", *more),
            name=name,
        )


@pytest.fixture
def harbour(tmp_path: Path) -> Iterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    for program in reversed(made.programs):
        program.end(signal.SIGKILL)


def page(url: str, path: str = "/status") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url.replace("/status", path), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def main_says(*command: str) -> str:
    call = "import sys; from lading.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", call, *command], capture_output=True, text=True, check=True)
    return done.stdout


async def until(what, seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await what():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def sending_in(ledger: Path) -> bool:
    """Whether a transaction is written down whose fate is open, or the channel's has been decided."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as reader:
        (count,) = reader.execute(
            "select (select count(*) from sendings) + (select count(*) from redemptions)"
        ).fetchone()
    return bool(count)


def test_one_job_paid_and_redeemed_through_a_sigkill(harbour: Harbour) -> None:
    asyncio.run(voyage(harbour))


async def voyage(harbour: Harbour) -> None:
    chain = open_chain(harbour.url, CHAIN_ID)
    faucet, maker, payer = faucet_key("lading"), key("maker"), key("gateway")
    record = await deploy(chain, faucet, Parameters.devnet())
    record.save(harbour.folder / "deployment.json")
    contracts = Contracts(chain, record)
    for who in (maker, payer):
        await chain.send(faucet, who.address, b"", 10**18)
    store = BlobStore(harbour.folder / "published")
    project = publisher.load_project(AGENT_FOLDER)
    agent, manifest = publisher.pack(project, AGENT_FOLDER, maker.address, store)
    table = publisher.parties(project, maker.address)
    terms = await release.publish(contracts, maker, release.Release(agent, table), time.time())
    await contracts.coin.transfer(faucet, payer.address, 10 * COIN)
    await contracts.coin.allow(payer, record.settlement, 10 * COIN)
    await contracts.settlement.deposit(payer, 10 * COIN)
    transport = DirectTransport(payer)
    transport.handle(BLOB, serve_blobs(store))
    gateway = Gateway(Shore(record), "gateway", transport=transport, agent=agent)
    endpoint = await gateway.start("/ip4/127.0.0.1/tcp/0")
    flags = ("--agent", to_hex(agent), "--coordinator", endpoint)

    node = harbour.node(*flags, "--redeem-age", "3600")
    facts = node.ready()
    host = bytes.fromhex(facts["operator"][2:])
    await chain.send(faucet, host, b"", 10**18)
    await asyncio.wait_for(gateway.offers(1), 30)
    assert page(facts["status"], "/healthz")[0] == 200
    assert page(facts["status"], "/readyz")[0] == 200
    assert manifest.name in page(facts["status"])[1]
    text, ids = await gateway.ask(chat_request("What is 2 + 3?", max_tokens=60, temperature=0.0))
    assert text

    async def accounted() -> bool:
        return bool(gateway.ended)

    await until(accounted, 5)  # once the last voucher is signed
    (ended,) = gateway.ended
    assert ended.cost == ended.parts[0].amount > 0
    assert len(ids) == ended.output_tokens

    async def paid() -> bool:
        shown = json.loads(page(facts["status"])[1])["earnings"]
        return shown["signed"] == str(ended.cost) and shown["unpaid"] == "0"

    await until(paid, 5)  # with the stream itself, not by asking again later
    second = harbour.node(*flags, name="node")
    assert second.end(0 if second.process.poll() is not None else signal.SIGCONT) != 0
    assert "folder_busy" in (harbour.folder / "node.log").read_text()
    ledger = next(path for path in harbour.folder.rglob("ledger.sqlite"))
    assert ledger.stat().st_mode & 0o077 == 0
    where = ChannelKey(payer.address, host, terms)
    assert (await contracts.settlement.channel(where)).redeemed == 0
    node.end(signal.SIGKILL)

    # Two lives that end the moment their redemption is written down: it may be signed, on its way or included.
    for life in range(2):
        doomed = harbour.node(*flags, "--redeem-age", "0.5", name="node")
        doomed.ready()
        await until(lambda: asyncio.to_thread(sending_in, ledger), 20)
        await asyncio.sleep(0.02 * life)
        doomed.end(signal.SIGKILL)

    again = harbour.node(*flags, "--redeem-age", "0.5")
    facts = again.ready()

    async def redeemed() -> bool:
        return (await contracts.settlement.channel(where)).redeemed == ended.cost

    await until(redeemed)
    earned = await contracts.settlement.host_balance(host) + await contracts.settlement.earned(terms)
    assert earned == ended.cost
    metrics = page(facts["status"], "/metrics")[1]
    assert f"lading_node_earned_wei {ended.cost}\n" in metrics
    assert 'lading_net_refused_total{kind="machine"} 0\n' in metrics
    await call_in_vain(json.loads(page(facts["status"])[1])["endpoints"][0], 150, "127.8.0.1")
    metrics = page(facts["status"], "/metrics")[1]
    refused = json.loads(page(facts["status"])[1])["turned_away"]
    assert refused["machine"] > 10
    assert f'lading_net_refused_total{{kind="machine"}} {refused["machine"]}\n' in metrics
    port = facts["status"].split(":")[2].split("/")[0]
    said = await asyncio.to_thread(main_says, "node", "status", "--http", port)
    assert f"Turned away by the limits: {refused['machine']} calls from machines that call too often." in said
    assert page(facts["status"], "/nothing")[0] == 404
    assert again.end(signal.SIGTERM) == 0
    await transport.close()
    await chain.close()
