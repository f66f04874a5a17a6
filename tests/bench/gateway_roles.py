"""The processes of the gateway benchmark that are ours: the upstream, the gateway on its market, and two proxies.

Each says what it is in one line when it is ready. `python -m tests.bench.gateway_roles ROLE TOLD` starts one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from .processes import Program, program, say_ready

if TYPE_CHECKING:
    from .builds import Build

TOKENS = 32
SHORT = 16
MODEL = "storyteller"
AGENTS = 200
# Beyond this many jobs at once the settings of a coordinator refuse; the benchmark wants to know what lies there.
MOST_JOBS = 8192
# And beyond these a second a host's.
MOST_STREAMS = 1 << 16
FAR = 1e6


def _answers() -> tuple[bytes, bytes]:
    """A stream of TOKENS tokens and a whole answer of SHORT in OpenAI's shape, as one HTTP answer each."""
    head = {"id": "chatcmpl-0", "created": 0, "model": MODEL, "system_fingerprint": "lading"}
    choice = {"index": 0, "logprobs": None}

    def event(delta: dict[str, str], finish: str | None) -> bytes:
        choices = [choice | {"delta": delta, "finish_reason": finish}]
        tree = head | {"object": "chat.completion.chunk", "choices": choices}
        return b"data: " + json.dumps(tree).encode() + b"\n\n"

    events = [event({"role": "assistant", "content": ""}, None), *(TOKENS - 1) * [event({"content": "word "}, None)]]
    events += [event({}, "stop") + b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in events)
    begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    message = {"role": "assistant", "content": "word " * SHORT}
    used = {"prompt_tokens": 4, "completion_tokens": SHORT, "total_tokens": 4 + SHORT}
    choices = [choice | {"message": message, "finish_reason": "length"}]
    body = json.dumps(head | {"object": "chat.completion", "choices": choices, "usage": used}).encode()
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    return begin + chunks + b"0\r\n\r\n", whole


def _plain() -> type[asyncio.Protocol]:
    """An OpenAI server with no model: the same answer at once, and a yes to every question about its health."""
    stream, whole = _answers()
    known = b'{"object":"list","data":[{"id":"%b","object":"model"}],"model_path":"%b"}' % (2 * (MODEL.encode(),))
    well = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(known), known)

    class Plain(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.data = transport, b""

        def data_received(self, data: bytes) -> None:
            self.data += data
            while (found := _cut(self.data)) is not None:
                post, body, self.data = found
                asked = b'"stream":true' in body.replace(b" ", b"")
                self.transport.write((stream if asked else whole) if post else well)

    return Plain


def _cut(data: bytes) -> tuple[bool, bytes, bytes] | None:
    """Whether the first request is a POST, its body, and what follows it."""
    head, mark, rest = data.partition(b"\r\n\r\n")
    if not mark:
        return None
    low = head.lower()
    if b"\r\ntransfer-encoding: chunked" in low:
        body, mark, left = rest.partition(b"0\r\n\r\n")
        return (head.startswith(b"POST"), body, left) if mark else None
    size = int(low.partition(b"\r\ncontent-length: ")[2].split(b"\r\n")[0] or 0)
    return (head.startswith(b"POST"), rest[:size], rest[size:]) if len(rest) >= size else None


async def upstream(told: dict[str, Any]) -> None:
    """The plain server, and beside it a host of the network that answers with as many tokens, at once or at a pace.

    Told not to bind, it signs every receipt at once. Each further line that it is told is the seconds between two
    tokens, from now on and of every answer.
    """
    from factories import key
    from lading_contracts.deployment import decode
    from lading_net.direct import DirectSettings, DirectTransport, openings_at
    from lading_protocol.manifest import dump
    from unit.coordinator.host import Habits, Host
    from unit.coordinator.world import manifest

    from .gateway_pace import PacedHost

    server = await asyncio.get_running_loop().create_server(_plain(), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    say_ready({"http": f"127.0.0.1:{port}"})
    joined = json.loads(await _line())
    transport = DirectTransport(key("host"), DirectSettings(openings=openings_at(MOST_STREAMS)))
    endpoint = await transport.listen("/ip4/127.0.0.1/tcp/0")
    agents = [(bytes.fromhex(joined["agent"]), bytes.fromhex(joined["terms"]), MODEL)]
    blobs = {agents[0][0]: dump(manifest())}
    record = decode(json.dumps(joined["record"]).encode())
    binds = told.get("binds", True)
    habits = Habits(length=told.get("length", TOKENS), at_once=True, slots=MOST_JOBS, binds=binds)
    kind = PacedHost if told.get("paced") else Host
    host = kind(transport, key("host"), record, agents, time.time, habits, blobs)
    say_ready({"endpoint": endpoint, "offer": next(iter(host.offers)).hex()})
    running = [asyncio.ensure_future(host.join(joined["endpoint"]))]
    if isinstance(host, PacedHost):
        running.append(asyncio.ensure_future(host.beat_time()))
    while line := await _line():
        host.pause = json.loads(line)
    for task in running:
        task.cancel()


async def gateway(told: dict[str, Any]) -> None:
    """A whole coordinator, its chain in memory, that knows `offers` offers beside the one host's."""
    from integration.coordinator.town import town
    from lading_net.heap import calm_collector

    limits = {"jobs_per_key": MOST_JOBS, "jobs_at_once": MOST_JOBS}
    with tempfile.TemporaryDirectory() as folder:
        async with town(Path(folder), **limits) as made:
            _crowd(made, told.get("offers", 0))
            calm_collector()
            record = json.loads(made.record.encode())
            names = {"agent": made.agent.hex(), "terms": made.terms.hex(), "record": record}
            say_ready({"http": made.url, "endpoint": made.endpoint, "key": await made.session()} | names)
            await _line()


def _crowd(made: Any, count: int) -> None:
    """Offers of hosts that report load and ask far more than our one host: of its agent, and of many others."""
    import msgspec

    from factories import key, known_offer
    from lading_protocol.ids import Address, Digest
    from lading_protocol.offers import KnownOffer

    directory, rng, now = made.coordinator.directory, random.Random(5), time.time()
    pattern = known_offer(key("crowd"), now=now)
    agents = [made.agent, *(rng.randbytes(32) for _ in range(AGENTS - 1))]
    for each in range(count):
        host = Address(rng.randbytes(20))
        offer = msgspec.structs.replace(
            pattern.offer,
            host=host,
            agent=agents[each % AGENTS],
            price_in=2 * pattern.offer.price_in + rng.randrange(10**6),
            price_out=2 * pattern.offer.price_out + rng.randrange(10**6),
        )
        directory.put(KnownOffer(Digest(rng.randbytes(32)), offer, pattern.detail, pattern.advert))
        directory.beat(host, 4, 0, now + FAR)


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
        say_ready({"http": f"127.0.0.1:{runner.addresses[0][1]}"})
        await _line()
        await runner.cleanup()


async def relay(told: dict[str, Any]) -> None:
    """Our HTTP server with nothing behind it but the plain upstream: what the data plane itself costs."""
    from lading_coordinator.gateway.server import HttpServer

    from .gateway_relay import Relay

    server = HttpServer(Relay(told["upstream"]))
    host, port = await server.listen("127.0.0.1", 0)
    say_ready({"http": f"{host}:{port}"})
    await _line()


async def _line() -> str:
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


ROLES = {role.__name__: role for role in (upstream, gateway, proxy, relay)}


def role(
    name: str, told: dict[str, Any], core: int | None, build: Build | None = None
) -> contextlib.AbstractContextManager[Program]:
    """Start one, bound to a core where the machine has several."""
    environment = None if build is None else build.environment
    return program("-m", __name__, name, json.dumps(told), environment=environment, core=core)


if __name__ == "__main__":
    uvloop.run(ROLES[sys.argv[1]](json.loads(sys.argv[2])))
