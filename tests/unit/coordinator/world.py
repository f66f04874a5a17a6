"""A coordinator with everything around it in memory: network, chain, clock, hosts, and a payer with a deposit.

`World.build` runs inside a virtual loop; `ask` speaks HTTP to the coordinator's own connection class over an in-memory
transport, so whole requests run without a socket.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec

from factories import key
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.fake import FakeChain
from lading_contracts.registry import Party, Role
from lading_coordinator.gateway.connection import Connection, Limits
from lading_coordinator.main import Coordinator, Outside
from lading_coordinator.settings import CoordinatorSettings
from lading_coordinator.workers.place import Place
from lading_net.memory import MemoryNetwork
from lading_protocol.economics import AuditRates
from lading_protocol.ids import AgentId, TermsId, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import Manifest, agent_id, dump
from lading_protocol.parts import LlmShape, Operation, Runtime, describe_file
from unit.coordinator.host import Habits, Host

EPOCH = 1_800_000_000.0
COIN = 10**18
MODEL = b"weights"


def manifest(name: str = "storyteller", version: str = "1", publisher: PrivateKey | None = None) -> Manifest:
    shape = LlmShape(layers=1, heads=1, kv_heads=1, head_size=4, hidden=4, vocab=32, eos=(2,))
    return Manifest(
        schema="lading.agent/1",
        name=name,
        version=version,
        publisher=to_hex((publisher or key("maker")).address),
        summary="Tells stories.",
        licence="Apache-2.0",
        api=(Operation("chat"), Operation("embed"), Operation("echo")),
        context=4096,
        width=4,
        runtimes=(Runtime("llm-onnx", "model.onnx", "f32", "onnx-f32-cpu", shape),),
        files=(describe_file("model.onnx", "model", MODEL),),
    )


class World:
    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path, **settings: Any) -> None:
        self.loop = loop
        self.clock: Callable[[], float] = lambda: EPOCH + loop.time()
        self.chain = FakeChain(self.clock, block_time=1.0)
        self.net = MemoryNetwork(seed=7)
        self.bank = key("bank")
        self.payer = key("payer")
        self.hosts: list[Host] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._folder = folder
        self._rates = settings.pop("rates", AuditRates())
        self._beacon = settings.pop("beacon", None)
        self._place = settings.pop("place", Place())
        self._settings = settings
        self._rng = random.Random(7)
        self.key = key("coordinator")

    async def build(self) -> None:
        record = await deploy(self.chain, self.bank, Parameters.devnet())
        self.contracts = Contracts(self.chain, record)
        self.record = record
        for who, coins in ((self.payer, 1000), (self.key, 1000)):
            await self.contracts.coin.transfer(self.bank, who.address, coins * COIN)
        self.agent, self.terms = await self.register(manifest())
        await self.start()

    async def start(self) -> None:
        """A coordinator on the folder; again after `crash`."""
        transport = self.net.transport(self.key)
        self.endpoint = await transport.listen("/ip4/10.0.0.1/tcp/4600")
        base = {"home": str(self._folder), "audit_period": 2.0, "audit_rate": 1.0, "audit_patience": 5.0}
        settings = msgspec.convert(base | self._settings, CoordinatorSettings)
        outside = Outside(
            self.key,
            self.contracts,
            transport,
            self.net.gossip(self.key),
            (self.endpoint,),
            self.clock,
            self._rng.randbytes,
            self._rates,
            self._beacon,
            self._place,
        )
        self.coordinator = Coordinator(settings, outside)
        self.app = self.coordinator.application()

    async def register(self, made: Manifest, publisher: PrivateKey | None = None) -> tuple[AgentId, TermsId]:
        agent = agent_id(dump(made))
        maker = publisher or key("maker")
        await self.contracts.registry.register(maker, agent)
        terms = await self.contracts.registry.agree_terms(maker, agent, [Party(maker.address, Role.MAKER, 1500)])
        return agent, terms

    async def stake(self, who: PrivateKey) -> None:
        from lading_protocol.receipts import StakeConsent

        owner = key("owner of " + who.address.hex())
        await self.contracts.coin.transfer(self.bank, owner.address, 2000 * COIN)
        await self.contracts.coin.approve(owner, self.record.staking, 2000 * COIN)
        consent = StakeConsent(owner.address).sign(self.record.staking_domain, who).signature
        await self.contracts.staking.stake(owner, who.address, 2000 * COIN, consent)
        await self.contracts.coin.transfer(self.bank, owner.address, 50 * COIN)
        await self.contracts.coin.approve(owner, self.record.court, 50 * COIN)
        await self.contracts.court.lodge(owner, who.address, 50 * COIN)

    async def host(self, label: str, habits: Habits | None = None, *, staked: bool = True, **offer: Any) -> Host:
        """A host that is linked, beats, and is staked."""
        who = key(label)
        if staked:
            await self.stake(who)
        agents = offer.get("agents") or [(self.agent, self.terms, "storyteller")]
        blobs = offer.get("blobs", {self.agent: dump(manifest())})
        kind: type[Host] = offer.get("kind", Host)
        made = kind(self.net.transport(who), who, self.record, agents, self.clock, habits, blobs)
        self.hosts.append(made)
        self.tasks.append(asyncio.create_task(made.join(self.endpoint)))
        await asyncio.sleep(0.1)
        return made

    async def session(self, cap: int = 100 * COIN, deposit: int = 500 * COIN, life: int = 3600) -> str:
        """An API key whose session the payer has authorized."""
        made = self.coordinator.sessions.create(self.payer.address)
        settlement = self.contracts.settlement
        if deposit:
            await self.contracts.coin.approve(self.payer, self.record.settlement, deposit)
            await settlement.deposit(self.payer, deposit)
        await settlement.authorize(self.payer, made.session, cap, int(self.clock()) + life, made.consent)
        return made.api_key

    async def ask(self, method: str, path: str, body: Any = None, api_key: str = "", **headers: str) -> "Answer":
        wire = self.connect()
        wire.send(encode(method, path, body, api_key, **headers))
        answer = await wire.answer()
        wire.hang_up()
        return answer

    async def chat(self, api_key: str, **changes: Any) -> "Answer":
        body = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me a story"}]} | changes
        return await self.ask("POST", "/v1/chat/completions", body, api_key)

    def connect(self, limits: Limits | None = None) -> "Wire":
        return Wire(Connection(self.app, limits or Limits(), set()))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["World"]:
        await self.build()
        try:
            async with self.coordinator.working():
                yield self
        finally:
            for task in self.tasks:
                task.cancel()
            await self.coordinator.close()


def encode(method: str, path: str, body: Any = None, api_key: str = "", **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(data)}"]
    if api_key:
        lines.append(f"Authorization: Bearer {api_key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def events(self) -> list[Any]:
        """The SSE events; the last one of a whole stream is the string [DONE]."""
        lines = [part.removeprefix("data: ") for part in self.body.decode().split("\n\n") if part]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    @property
    def text(self) -> str:
        return "".join(
            choice["delta"].get("content") or ""
            for event in self.events
            if event != "[DONE]"
            for choice in event.get("choices", ())
        )


class Wire(asyncio.Transport):
    """The client's end of a connection, and the transport that the connection writes to. `limit` bytes fit unread;
    they came in `writes`."""

    def __init__(self, connection: Connection, limit: int = 1 << 30) -> None:
        super().__init__()
        self._connection = connection
        self._received = bytearray()
        self._arrived = asyncio.Event()
        self._limit = limit
        self._paused = False
        self.writes = 0
        self.closed = False
        self.eof = False
        connection.connection_made(self)

    # The client's side

    def send(self, data: bytes) -> None:
        if not self.closed:
            self._connection.data_received(data)

    async def answer(self) -> Answer:
        """The next whole answer."""
        while True:
            found = _cut(self._received)
            if found is not None:
                answer, size = found
                del self._received[:size]
                return answer
            if self.closed or self.eof:
                raise EOFError(bytes(self._received))
            self._arrived.clear()
            await self._arrived.wait()

    async def until(self, what: bytes) -> bytes:
        while what not in self._received:
            self._arrived.clear()
            await self._arrived.wait()
        return bytes(self._received)

    def read(self) -> bytes:
        """Take what has arrived; the connection may write on."""
        data = bytes(self._received)
        self._received.clear()
        if self._paused:
            self._paused = False
            self._connection.resume_writing()
        return data

    def hang_up(self) -> None:
        if not self.closed:
            self.closed = True
            self._connection.connection_lost(None)

    # The transport's side

    def write(self, data: Any) -> None:
        self._received += data
        self.writes += 1
        self._arrived.set()
        if len(self._received) > self._limit and not self._paused:
            self._paused = True
            self._connection.pause_writing()

    def close(self) -> None:
        self.closed = True
        self._arrived.set()
        asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True
        self._arrived.set()

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _cut(data: bytearray) -> tuple[Answer, int] | None:
    head, mark, rest = bytes(data).partition(b"\r\n\r\n")
    if not mark:
        return None
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    status, start = int(lines[0].split()[1]), len(head) + 4
    if status == 100:
        again = _cut(bytearray(rest))
        return None if again is None else (again[0], again[1] + start)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while True:
            line, mark, rest = rest.partition(b"\r\n")
            if not mark:
                return None
            size = int(line, 16)
            if len(rest) < size + 2:
                return None
            body, rest = body + rest[:size], rest[size + 2 :]
            if size == 0:
                return Answer(status, headers, body), len(data) - len(rest)
    size = int(headers.get("content-length", 0))
    return (Answer(status, headers, rest[:size]), start + size) if len(rest) >= size else None
