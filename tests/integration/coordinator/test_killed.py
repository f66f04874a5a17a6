"""A coordinator is killed in the middle of its traffic and started again: no hold is lost, no promise taken back.

What its hosts saw is the judge: vouchers only grow over all its lives, all that was ever locked stays within the cap,
and what is in its folder at the next start covers what was sent before the end.
"""

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from factories import key
from integration.coordinator.town import ANY_PORT
from lading_contracts.deployment import Deployment, decode
from lading_net.direct import DirectTransport
from lading_protocol.eip712 import unpack
from lading_protocol.ids import from_hex, to_hex
from lading_protocol.manifest import dump
from lading_protocol.messages import Open, Pay
from lading_protocol.receipts import Lock, Voucher
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import manifest

PRICE = 1_000_000
# A request's worst case is some 300 prompt and 30 output tokens; this is worth a hundred whole answers.
ANSWERS = 100
CAP = ANSWERS * 30 * PRICE // 1000
LIVES = 3
BODY = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}], "max_tokens": 30}


class Life:
    """One process, from its first line to SIGKILL."""

    def __init__(self, process: asyncio.subprocess.Process, told: dict[str, Any]) -> None:
        self.process = process
        self.told = told
        self.answered = 0
        self.broke = 0
        self.unpaid = 0
        self.busy = asyncio.Event()

    async def ask(self, client: httpx.AsyncClient) -> None:
        headers = {"authorization": f"Bearer {self.told['api_key']}"}
        try:
            answer = await client.post(self.told["http"] + "/v1/chat/completions", json=BODY, headers=headers)
        except httpx.HTTPError:
            self.broke += 1
            self.busy.set()
            return
        self.answered += answer.status_code == 200
        self.unpaid += answer.status_code == 402
        self.busy.set()
        assert answer.status_code in (200, 402, 429, 503), answer.text

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def life(folder: Path, api_key: str) -> AsyncIterator[Life]:
    command = [sys.executable, "-m", "integration.coordinator.doomed", str(folder), str(CAP)]
    command += [api_key] if api_key else []
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        yield Life(process, json.loads(line))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Judge:
    """Two hosts in each life of the coordinator, what its folder held when the life began, and what they were given.

    A stream brings its vouchers as they were signed. Those of two streams may overtake each other, and an Open says
    what was promised when it was written: across streams only whole lives follow on each other.
    """

    def __init__(self) -> None:
        self.lives: list[tuple[dict[str, int], list[Host]]] = []

    async def join(self, told: dict[str, Any], record: Deployment) -> list[asyncio.Task[None]]:
        agents = [(from_hex(told["agent"], 32), from_hex(told["terms"], 32), "storyteller")]
        tasks = []
        for nth in range(2):
            who = key(f"host {nth}")
            transport = DirectTransport(who)
            await transport.listen(ANY_PORT)
            habits = Habits(length=30, pause=0.002, price_in=1, price_out=PRICE + nth)
            host = Host(transport, who, record, agents, time.time, habits, {agents[0][0]: dump(manifest())})
            self.lives[-1][1].append(host)
            tasks.append(asyncio.create_task(host.join(told["endpoint"], 0.2)))
        return tasks

    def check(self) -> dict[str, int]:
        """The highest voucher of each host, if all were right."""
        account = Account()
        for held, hosts in self.lives:
            for name, highest in account.highest.items():
                assert held.get(name, 0) >= highest, "a promise that a host holds is not in the purse"
            for host in hosts:
                name = to_hex(host.key.address)
                account.read(name, held.get(name, 0), host.heard)
        assert sum(account.locked.values()) <= CAP
        return account.highest


class Account:
    """What each host holds, in wei."""

    def __init__(self) -> None:
        self.highest: dict[str, int] = {}
        self.locked: dict[str, int] = {}
        self.paid: set[tuple[str, int]] = set()

    def read(self, host: str, held: int, heard: list[tuple[int, Open | Pay]]) -> None:
        """What came in one life, at whose beginning the purse held a voucher over `held` wei."""
        last: dict[int, int] = {}
        for stream, message in heard:
            cumulative = unpack(Voucher, message.voucher).value.cumulative if message.voucher else 0
            if isinstance(message, Open):
                assert cumulative >= held, "a job begins with less than was promised in an earlier life"
                locked = unpack(Lock, message.lock).value.cumulative if message.lock else 0
                self.locked[host] = max(self.locked.get(host, 0), locked)
            else:
                assert cumulative > last[stream], "a voucher is not above one that was signed before"
                assert (host, cumulative) not in self.paid, "two vouchers were signed over the same amount"
                self.paid.add((host, cumulative))
            # At any moment: what is signed for was delivered, so the host has read the locks behind it.
            assert cumulative <= self.locked[host], "more is signed for than is locked"
            last[stream] = cumulative
            self.highest[host] = max(self.highest.get(host, 0), cumulative)


async def _live(folder: Path, api_key: str, judge: Judge, rng: random.Random, *, to_the_end: bool) -> Life:
    async with life(folder, api_key) as one:
        held = {host: (int(paid), int(locked)) for host, (paid, locked) in one.told["channels"].items()}
        judge.lives.append(({host: paid for host, (paid, _) in held.items()}, []))
        judge.check()
        assert int(one.told["locked"]) == sum(locked for _, locked in held.values()) <= CAP
        joined = await judge.join(one.told, decode(one.told["record"].encode()))
        async with httpx.AsyncClient(timeout=10) as client:
            await _until_served(one, client)
            asking = [asyncio.create_task(_hammer(one, client)) for _ in range(6)]
            if to_the_end:
                await asyncio.gather(*asking)
            else:
                await one.busy.wait()
                await asyncio.sleep(0.3 + rng.random() / 2)
            await one.kill()
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, *joined, return_exceptions=True)
        for host in judge.lives[-1][1]:
            await host.transport.close()
    return one


async def _until_served(one: Life, client: httpx.AsyncClient) -> None:
    for _ in range(200):
        if (await client.get(one.told["http"] + "/v1/models")).json()["data"]:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no host came")


async def _hammer(one: Life, client: httpx.AsyncClient) -> None:
    while not one.unpaid and not one.broke and one.answered <= ANSWERS:
        await one.ask(client)


def test_no_hold_is_lost_however_often_it_is_killed(tmp_path: Path) -> None:
    async def story() -> None:
        judge, api_key, rng = Judge(), "", random.Random(5)
        lives = []
        for nth in range(LIVES):
            one = await _live(tmp_path / "home", api_key, judge, rng, to_the_end=nth == LIVES - 1)
            api_key = one.told["api_key"]
            lives.append(one)
        assert {one.told["signer"] for one in lives} == {lives[0].told["signer"]}
        highest = judge.check()
        assert sum(highest.values()) <= CAP
        assert all(one.answered for one in lives[:-1])
        assert lives[-1].unpaid, "the cap holds over all lives together"
        assert sum(highest.values()) > CAP // 3

    asyncio.run(story())
