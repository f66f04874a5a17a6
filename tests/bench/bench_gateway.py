"""What the gateway adds to a direct call: time to first byte, and CPU per 32-token stream, beside an aiohttp proxy.

Four processes: one upstream that answers both plain HTTP and the job protocol with the same tokens, the gateway (with
matching, vouchers, receipts and ledger; the chain is in its memory), the proxy, and this client. The ways take turns,
so that noise hits all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from .processes import Program, program, say_ready
from .report import say

TOKENS = 32
BODY = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}], "stream": True}
WAYS = ("direct", "job", "gateway", "proxy")


# The other processes --------------------------------------------------------------------------------------------------


async def upstream(told: dict[str, Any]) -> None:
    """A host of the network, and beside it an HTTP server that gives the same stream at once."""
    from factories import key
    from lading_contracts.deployment import decode
    from lading_net.direct import DirectTransport
    from lading_protocol.manifest import dump
    from unit.coordinator.host import Habits, Host
    from unit.coordinator.world import manifest

    answer = _answer()

    class Plain(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.data = transport, b""

        def data_received(self, data: bytes) -> None:
            self.data += data
            head, mark, body = self.data.partition(b"\r\n\r\n")
            if mark and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
                self.data = b""
                self.transport.write(answer)

    server = await asyncio.get_running_loop().create_server(Plain, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    say_ready({"http": f"127.0.0.1:{port}"})
    joined = json.loads(await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline))
    transport = DirectTransport(key("host"))
    endpoint = await transport.listen("/ip4/127.0.0.1/tcp/0")
    agents = [(bytes.fromhex(joined["agent"]), bytes.fromhex(joined["terms"]), "storyteller")]
    blobs = {agents[0][0]: dump(manifest())}
    record = decode(json.dumps(joined["record"]).encode())
    host = Host(transport, key("host"), record, agents, time.time, Habits(length=TOKENS), blobs)
    say_ready({"endpoint": endpoint, "offer": next(iter(host.offers)).hex()})
    await host.join(joined["endpoint"])


async def gateway(told: dict[str, Any]) -> None:
    from integration.coordinator.town import town

    with tempfile.TemporaryDirectory() as folder:
        async with town(Path(folder)) as made:
            record = json.loads(made.record.encode())
            names = {"agent": made.agent.hex(), "terms": made.terms.hex(), "record": record}
            say_ready({"http": made.url, "endpoint": made.endpoint, "key": await made.session()} | names)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def proxy(told: dict[str, Any]) -> None:
    """The least an aiohttp proxy can do: pass bytes through, no parsing, no logging."""
    from aiohttp import ClientSession, TCPConnector, web

    async def handle(request: web.Request) -> web.StreamResponse:
        data = await request.read()
        headers = {"content-type": "application/json"}
        async with session.post(f"http://{told['upstream']}{request.path}", data=data, headers=headers) as answer:
            response = web.StreamResponse(status=answer.status, headers={"content-type": answer.content_type})
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        app = web.Application()
        app.router.add_post("/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        say_ready({"http": f"http://127.0.0.1:{port}"})
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await runner.cleanup()


def _answer() -> bytes:
    """The stream that our own gateway would write, as one HTTP answer."""
    from lading_coordinator.core.answer import Bill, ChunkWriter, tongue
    from lading_protocol.ids import JobId, Wei
    from lading_protocol.receipts import Finish

    writer = ChunkWriter(tongue(JobId(bytes(32)), 0, "storyteller", bytes(32)), include_usage=False)
    events = [writer.role()] + [writer.text("word ") for _ in range(TOKENS - 1)]
    events.append(writer.end(Finish.STOP, Bill(JobId(bytes(32)), Wei(0), 4, TOKENS, (), 18)))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + chunks + b"0\r\n\r\n"


# The client -----------------------------------------------------------------------------------------------------------


class Client(asyncio.Protocol):
    """One connection that asks again and again; notes when the first byte of content and the last byte came."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._tail = b""
        self._done: asyncio.Future[None] | None = None
        self._first = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter()
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(data[:400])
        self._tail = (self._tail + data)[-64:]
        if self._tail.endswith(b"0\r\n\r\n") and b"[DONE]" in self._tail and self._done is not None:
            self._done.set_result(None)

    async def ask(self) -> float:
        """Seconds to the first byte."""
        self._done = asyncio.get_running_loop().create_future()
        self._first, self._tail = 0.0, b""
        begun = time.perf_counter()
        self._transport.write(self._request)
        await self._done
        return self._first - begun


def _request(address: str, api_key: str) -> bytes:
    body = json.dumps(BODY).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {address}", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {api_key}", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def _connect(address: str, api_key: str, count: int) -> list[Client]:
    host, _, port = address.rpartition("/")[2].partition(":")
    request, loop = _request(address, api_key), asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Client(request), host, int(port)) for _ in range(count)]
    return [client for _, client in made]


async def measure(
    peers: dict[str, tuple[str, str, Program]], job: dict[str, str], rounds: int, asks: int
) -> dict[str, Any]:
    ones: dict[str, Any] = {
        way: (await _connect(address, api_key, 1))[0] for way, (address, api_key, _) in peers.items()
    }
    manys = {way: await _connect(address, api_key, 16) for way, (address, api_key, _) in peers.items()}
    ones["job"] = await JobClient.connect(job["endpoint"], job["offer"])
    first: dict[str, list[float]] = {way: [] for way in WAYS}
    cpu: dict[str, list[float]] = {way: [] for way in peers}
    for client in [*ones.values(), *(one for many in manys.values() for one in many)]:
        await client.ask()
    for _ in range(rounds):
        for way in WAYS:
            first[way] += [await ones[way].ask() for _ in range(asks)]
        for way in peers:
            before = peers[way][2].cpu
            await asyncio.gather(*(_repeat(client, asks // 4) for client in manys[way]))
            cpu[way].append((peers[way][2].cpu - before) / (len(manys[way]) * (asks // 4)))
    return {
        "ttfb": {way: statistics.median(times) * 1e6 for way, times in first.items()},
        "cpu": {way: statistics.median(times) * 1e6 for way, times in cpu.items()},
        "n": rounds * asks,
        "rounds": rounds,
    }


class JobClient:
    """The job protocol itself, without a gateway: what the host and the link take for the same request."""

    def __init__(self, link: Any, offer: bytes) -> None:
        self._link = link
        self._offer = offer

    @classmethod
    async def connect(cls, endpoint: str, offer: str) -> JobClient:
        from factories import key
        from lading_net.direct import DirectTransport

        return cls(await DirectTransport(key("bench")).dial(endpoint, None), bytes.fromhex(offer))

    async def ask(self) -> float:
        """Seconds to the first token."""
        import msgspec

        from factories import chat_request
        from lading_net.messages import MessageStream
        from lading_protocol import VERSION
        from lading_protocol.messages import JOB, Done, Open, Tokens, ToPayer

        request = chat_request("tell me a story", 512)
        opening = Open(VERSION, os.urandom(32), 0, self._offer, bytes(20), 0, request)
        begun, first = time.perf_counter(), 0.0
        messages: MessageStream[Any] = MessageStream(await self._link.open(JOB), msgspec.msgpack.Decoder(ToPayer))
        messages.send(opening)
        while not isinstance(message := await messages.recv(), Done):
            if isinstance(message, Tokens) and not first:
                first = time.perf_counter()
        await messages.close()
        return first - begun


async def _repeat(client: Client, count: int) -> None:
    for _ in range(count):
        await client.ask()


# The report -----------------------------------------------------------------------------------------------------------


def report(found: dict[str, Any]) -> None:
    ttfb, cpu, n = found["ttfb"], found["cpu"], found["n"]
    added = {
        "job": ttfb["gateway"] - ttfb["job"],
        "http": ttfb["gateway"] - ttfb["direct"],
        "proxy": ttfb["proxy"] - ttfb["direct"],
    }
    proxy = "bare aiohttp proxy"
    say(
        "gateway_added_ttfb_p50",
        added["job"],
        "us",
        reference=(f"{proxy}, added to its own direct call", added["proxy"]),
        n=n,
        note=f"over a direct call to the same host by the job protocol, which takes {ttfb['job']:.0f} us",
    )
    say(
        "gateway_added_ttfb_over_http_p50",
        added["http"],
        "us",
        reference=(f"{proxy}, added to the same direct call", added["proxy"]),
        n=n,
        note=f"over a direct HTTP call that gets a fixed answer in {ttfb['direct']:.0f} us: with the host's own work",
    )
    say("gateway_ttfb_p50", ttfb["gateway"], "us", reference=(proxy, ttfb["proxy"]), n=n, note="in all")
    what = "16 connections; whole process: parse, key, match, Noise, voucher, receipt, ledger, 32 SSE events"
    for name, other, words in (("", "proxy", proxy), ("_to_direct", "direct", "direct HTTP call, a fixed answer")):
        reference = words, cpu[other]
        say(f"gateway_cpu_per_stream32{name}", cpu["gateway"], "us", reference=reference, n=found["rounds"], note=what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a check that it runs")
    parser.add_argument("--role", choices=("upstream", "gateway", "proxy"))
    parser.add_argument("--told", default="{}")
    chosen = parser.parse_args()
    if chosen.role:
        uvloop.run({"upstream": upstream, "gateway": gateway, "proxy": proxy}[chosen.role](json.loads(chosen.told)))
        return
    rounds, asks = (3, 100) if chosen.quick else (7, 200)
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(_role("upstream", {}))
        gate = stack.enter_context(_role("gateway", {}))
        bare = stack.enter_context(_role("proxy", {"upstream": up.facts["http"]}))
        up.tell({name: gate.facts[name] for name in ("endpoint", "agent", "terms", "record")})
        job = up.hear()
        _wait_for_model(gate.facts["http"])
        peers = {
            "direct": (up.facts["http"], "none", up),
            "gateway": (gate.facts["http"], gate.facts["key"], gate),
            "proxy": (bare.facts["http"], "none", bare),
        }
        report(uvloop.run(measure(peers, job, rounds, asks)))


def _role(name: str, told: dict[str, Any]) -> contextlib.AbstractContextManager[Program]:
    return program("-m", __spec__.name, "--role", name, "--told", json.dumps(told))


def _wait_for_model(url: str) -> None:
    import httpx

    for _ in range(100):
        if httpx.get(f"{url}/v1/models").json()["data"]:
            return
        time.sleep(0.1)
    raise SystemExit("the host never reached the gateway")


if __name__ == "__main__":
    main()
