"""Several processes behind one port: every request finds its own, a killed one is missed by nobody else, none stays."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from factories import key
from integration.coordinator.test_gateway_tls import certificate
from integration.coordinator.town import ANY_PORT
from lading.answers import Bill, Delta, Notice
from lading.client import Client
from lading.core.options import Options
from lading_contracts.deployment import decode
from lading_net.direct import DirectTransport
from lading_protocol.eip712 import unpack
from lading_protocol.ids import from_hex
from lading_protocol.manifest import dump
from lading_protocol.receipts import Voucher
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import manifest

WORKERS = 2
BODY = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}]}


class Fleet:
    def __init__(
        self, process: asyncio.subprocess.Process, told: dict[str, Any], host: Host, trust: ssl.SSLContext | bool
    ) -> None:
        self.process = process
        self.trust = trust
        self.told = told
        self.host = host
        self.keys: list[str] = told["keys"]

    @property
    def url(self) -> str:
        return str(self.told["http"])

    def headers(self, number: int) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[number]}"}

    async def chat(self, number: int, **changes: Any) -> httpx.Response:
        """On a connection of its own, so that the kernel chooses whom it meets."""
        async with httpx.AsyncClient(timeout=30, verify=self.trust) as client:
            return await client.post(
                self.url + "/v1/chat/completions", json=BODY | changes, headers=self.headers(number)
            )

    async def stream(self, number: int, begun: asyncio.Event) -> bool:
        """Whether a long answer came to its end; `begun` is set at its first token."""
        body = BODY | {"stream": True, "max_tokens": 120}
        whole = False
        with contextlib.suppress(httpx.HTTPError):
            url, headers = self.url + "/v1/chat/completions", self.headers(number)
            async with (
                httpx.AsyncClient(timeout=30, verify=self.trust) as client,
                client.stream("POST", url, json=body, headers=headers) as answer,
            ):
                async for line in answer.aiter_lines():
                    whole = whole or line == "data: [DONE]"
                    if '"content":"' in line:
                        begun.set()
        begun.set()
        return whole

    def workers(self) -> list[int]:
        """The processes that it has started, oldest first."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sorted(int(pid) for pid in found if b"crewed" in Path(f"/proc/{pid}/cmdline").read_bytes())


@contextlib.asynccontextmanager
async def fleet(folder: Path, habits: Habits, **settings: Any) -> AsyncIterator[Fleet]:
    """`settings` are the coordinator's; its clients trust its own certificate."""
    told_settings = json.dumps(settings)
    command = [sys.executable, "-m", "integration.coordinator.crewed", "desk", str(folder), str(WORKERS), told_settings]
    trust: ssl.SSLContext | bool = True
    if "tls_cert" in settings:
        trust = ssl.create_default_context(cafile=settings["tls_cert"])
        trust.check_hostname = False  # it is reached by an address
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        assert process.stdout is not None
        told = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        transport = DirectTransport(key("host"))
        await transport.listen(ANY_PORT)
        agents = [(from_hex(told["agent"], 32), from_hex(told["terms"], 32), "storyteller")]
        blobs = {agents[0][0]: dump(manifest())}
        host = Host(transport, key("host"), decode(told["record"].encode()), agents, time.time, habits, blobs)
        joined = asyncio.create_task(host.join(told["endpoint"], 0.2))
        try:
            one = Fleet(process, told, host, trust)
            await _all_serve(one)
            yield one
        finally:
            joined.cancel()
            await transport.close()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _all_serve(one: Fleet) -> None:
    for number in range(WORKERS):
        for _ in range(200):
            answer = await one.chat(number)
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError(answer.text)


def test_one_port_many_processes(tmp_path: Path) -> None:
    """One fleet lives through all of it: starting takes longer than the stories."""

    async def story(one: Fleet) -> None:
        assert len(one.workers()) == WORKERS
        await _every_request_finds_its_process(one)
        await _figures_are_of_all(one)
        await _a_killed_worker_is_missed_by_nobody_else(one)
        await _who_can_goes_on_with_its_answer(one)
        await _no_worker_outlives_the_desk(one)

    async def main() -> None:
        async with fleet(tmp_path / "home", Habits(length=120, pause=0.01)) as one:
            await story(one)

    asyncio.run(main())


def test_workers_share_their_limits_and_speak_tls(tmp_path: Path) -> None:
    """TLS is agreed with the process that accepted, whichever the kernel chose: it relays what is another's."""
    cert, secret = certificate(tmp_path)

    async def main() -> None:
        habits = Habits(length=60, pause=0.01)
        async with fleet(tmp_path / "home", habits, jobs_at_once=3, tls_cert=cert, tls_key=secret) as one:
            assert one.url.startswith("https://")
            for number in (0, 1) * 4:  # each on a connection of its own
                answer = await one.chat(number, max_tokens=4)
                assert answer.status_code == 200, answer.text
            async with httpx.AsyncClient(timeout=30, verify=one.trust) as client:  # one connection, two owners
                for number in (0, 1, 0):
                    await _one_job(one, client, number)
            assert await _most_at_once(one, (0, 1) * 5) == 3, "of both workers together"
            assert await _most_at_once(one, (0,) * 6) == 3, "what the other does not use is free to the one"

    asyncio.run(main())


async def _most_at_once(one: Fleet, owners: Sequence[int]) -> int:
    """Of whole streams that are asked for together, as the host that works on them counts."""
    one.host.most_running = 0
    assert all(await asyncio.gather(*(one.stream(owner, asyncio.Event()) for owner in owners)))
    return one.host.most_running


async def _every_request_finds_its_process(one: Fleet) -> None:
    answers = await asyncio.gather(*(one.chat(n % WORKERS, stream=n % 3 == 0, max_tokens=8) for n in range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
    assert len({answer.headers["x-lading-job"] for answer in answers}) == 12
    for answer in answers:
        if "text/event-stream" in answer.headers["content-type"]:
            assert answer.text.rstrip().endswith("[DONE]")
    async with httpx.AsyncClient(timeout=30) as client:  # one connection, two owners, and the desk in between
        for number in (0, 1, 0):
            await _one_job(one, client, number)
        made = await client.post(one.url + "/lading/v1/sessions", json={"payer": "0x" + "11" * 20})
        assert made.status_code == 201
        url = one.url + "/v1/chat/completions"
        headers = {"authorization": f"Bearer {made.json()['api_key']}"}
        early = await client.post(url, json=BODY, headers=headers)
        assert early.json()["error"]["code"] == "session_not_authorized", "made at the desk, known to its worker"
        unknown = await client.post(url, json=BODY, headers={"authorization": "Bearer x"})
        assert unknown.json()["error"]["code"] == "invalid_api_key"
        assert (await client.get(one.url + "/")).status_code == 200
    # One purse for each session: what the host holds of each only ever grew.
    highest: dict[bytes, int] = {}
    for opening in one.host.served:
        if opening.voucher:
            cumulative = unpack(Voucher, opening.voucher).value.cumulative
            assert cumulative >= highest.get(opening.signer, 0)
            highest[opening.signer] = cumulative
    assert len(highest) == WORKERS


async def _one_job(one: Fleet, client: httpx.AsyncClient, number: int) -> None:
    answer = await client.post(
        one.url + "/v1/chat/completions", json=BODY | {"max_tokens": 8}, headers=one.headers(number)
    )
    assert answer.status_code == 200, answer.text
    job = (await client.get(f"{one.url}/lading/v1/jobs/{answer.headers['x-lading-job']}")).json()
    assert job["cost"]["wei"] == answer.headers["x-lading-cost"]
    session = (await client.get(f"{one.url}/lading/v1/session", headers=one.headers(number))).json()
    assert session["state"] == "active"
    assert int(session["channels"][0]["promised"]["wei"]) > 0


async def _figures_are_of_all(one: Fleet) -> None:
    """The jobs of both workers, and hosts counted once."""
    async with httpx.AsyncClient(timeout=30) as client:
        text = (await client.get(one.url + "/metrics")).text
    done = sum(float(count) for count in re.findall(r'lading_jobs_total\{code="ok",operation="chat"\} (\S+)', text))
    assert done == len(one.host.served), text
    assert "lading_hosts 1.0" in text


async def _a_killed_worker_is_missed_by_nobody_else(one: Fleet) -> None:
    before = one.workers()
    begun = [asyncio.Event() for _ in range(6)]
    running = [asyncio.create_task(one.stream(n % WORKERS, begun[n])) for n in range(6)]
    await asyncio.gather(*(event.wait() for event in begun))
    os.kill(before[0], signal.SIGKILL)
    whole = await asyncio.gather(*running)
    sides = sorted((whole[::2], whole[1::2]))
    assert sides == [[False] * 3, [True] * 3], "all answers of one broke off, none of the other's"
    began = time.monotonic()
    for number in range(WORKERS):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await one.chat(number, max_tokens=1)).status_code == 200:
                    break
            assert time.monotonic() - began < 40
            await asyncio.sleep(0.1)
    after = one.workers()
    assert len(after) == WORKERS
    assert len(set(before) & set(after)) == WORKERS - 1


async def _who_can_goes_on_with_its_answer(one: Fleet) -> None:
    """A client that keeps what it was told waits for the next process behind the same port."""
    begun = [asyncio.Event() for _ in range(WORKERS)]

    async def read(number: int) -> tuple[str, Bill]:
        text, bill = "", None
        async with Client.through(one.url, one.keys[number]) as client:
            async for piece in client.chat("storyteller", "tell me a story", Options(seed=7, max_tokens=120)):
                match piece:
                    case Delta(more):
                        text += more
                        begun[number].set()
                    case Bill():
                        bill = piece
                    case Notice():
                        moved.append(number)
        assert bill is not None
        return text, bill

    moved: list[int] = []
    running = [asyncio.create_task(read(number)) for number in range(WORKERS)]
    await asyncio.gather(*(event.wait() for event in begun))
    os.kill(one.workers()[0], signal.SIGKILL)
    (first, its), (second, other) = await asyncio.gather(*running)
    assert first == second
    assert (its.output_tokens, its.cost, its.finish) == (other.output_tokens, other.cost, other.finish)
    assert len(set(moved)) == 1


async def _no_worker_outlives_the_desk(one: Fleet) -> None:
    workers = one.workers()
    one.process.kill()
    await one.process.wait()
    for _ in range(200):
        if not any(_runs(pid) for pid in workers):
            break
        await asyncio.sleep(0.05)
    assert [pid for pid in workers if _runs(pid)] == []


def test_a_shared_port_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    from lading_coordinator.errors import PortInUse
    from lading_coordinator.workers.doors import hold

    held = hold("127.0.0.1", 0)
    port = held.getsockname()[1]
    for shared in (False, True):
        with socket.socket() as other:  # of another program, which may even be ready to share
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
            if not shared:
                held.close()
            other.bind(("127.0.0.1", port))
            other.listen()
            with pytest.raises(PortInUse, match=str(port)):
                hold("127.0.0.1", port)
    hold("127.0.0.1", port).close()


def _runs(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False
