"""Hosts that speak the job protocol from its primitives and do what a test wants, and a dispatcher before them."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import msgspec

from factories import NOW, chat_request, job_id, key, known_offer, network, with_changes
from lading.dispatch import Ask, Directory, Dispatcher, Ended, Moved, Payer, Piece, Purse
from lading.dispatch.dispatcher import Event, Limits
from lading.dispatch.purse import ChannelKey
from lading_net.clock import run_virtual
from lading_net.errors import NetError
from lading_net.memory import MemoryNetwork
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.eip712 import unpack
from lading_protocol.ids import JobId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import (
    JOB,
    Accept,
    Cancel,
    Chunk,
    Done,
    Open,
    Pay,
    ToHost,
    Tokens,
    request_hash,
)
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Finish, Receipt, Voucher
from lading_protocol.transcript import commitment, prompt_hash, roll, rolling_start

RECORD = network()
PAYER = key("payer")
PROMPT = (7, 8, 9)
ANSWER = tuple(range(100, 180))
_to_host = msgspec.msgpack.Decoder(ToHost)

Trick = Callable[[int, msgspec.Struct], msgspec.Struct | None]


def honest(index: int, message: msgspec.Struct) -> msgspec.Struct:
    return message


def dies_at(count: int) -> Trick:
    """Silence and a broken stream once `count` tokens are out."""
    return lambda index, message: None if index >= count else message


def lies_at(count: int, lie: Callable[[msgspec.Struct], msgspec.Struct]) -> Trick:
    return lambda index, message: lie(message) if index == count else message


class Host:
    """Speaks the host's side of a job straight from the protocol's primitives; `trick` may replace any message.
    Behind each chunk it rests for `rest` seconds."""

    def __init__(self, secret: PrivateKey, trick: Trick = honest, step: int = 1, rest: float = 0.0) -> None:
        self.key = secret
        self.offer = known_offer(secret, price_in=5_000, price_out=7_000)
        self.trick = trick
        self.step = step
        self.rest = rest
        self.paid = self.left = 0
        self.opened: list[Open] = []

    async def serve(self, stream: Stream) -> None:
        messages: MessageStream[Open | Pay] = MessageStream(stream, _to_host)  # type: ignore[arg-type]
        ask = await messages.recv()
        assert isinstance(ask, Open)
        self.opened.append(ask)
        self._note(ask.voucher)
        if self._say(messages, len(ask.emitted), Accept(len(PROMPT), prompt_hash(PROMPT))):
            await self._answer(messages, ask)
        with suppress(NetError):
            while (message := await messages.recv()) is not None:
                if isinstance(message, Pay):
                    self._note(message.voucher)
            self.left += 1

    async def _answer(self, messages: MessageStream[Open | Pay], ask: Open) -> None:
        at, first = len(ask.emitted), len(ask.emitted)
        while at < len(ANSWER):
            ids = ANSWER[at : at + self.step]
            rolling = roll(rolling_start(JobId(ask.job)), ANSWER[: at + len(ids)])
            if not self._say(messages, at, Tokens(at, ids, "".join(f"{i} " for i in ids), rolling)):
                return await self._die(messages)
            at += len(ids)
            if (at - first) % 32 == 0:
                if not self._say(messages, at, Chunk(self._receipt(ask, at - first, Finish.RUNNING))):
                    return await self._die(messages)
                if self.rest:
                    await asyncio.sleep(self.rest)
        self._say(messages, at, Done(self._receipt(ask, at - first, Finish.STOP)))
        return None

    async def _die(self, messages: MessageStream[Open | Pay]) -> None:
        await asyncio.sleep(0.01)  # what was sent gets through; a reset would drop it
        messages.stream.reset()

    def _say(self, messages: MessageStream[Open | Pay], index: int, message: msgspec.Struct) -> bool:
        told = self.trick(index, message)
        if told is not None:
            messages.send(told)
        return told is not None

    def _receipt(self, ask: Open, count: int, finish: Finish) -> bytes:
        first, offer = len(ask.emitted), self.offer.offer
        receipt = Receipt(
            job=ask.job,
            attempt=ask.attempt,
            request=request_hash(ask.request),
            agent=offer.agent,
            terms=offer.terms,
            host=offer.host,
            signer=PAYER.address,
            epoch=ask.epoch,
            first=first,
            prompt_tokens=len(PROMPT),
            output_tokens=count,
            prompt_hash=prompt_hash(PROMPT),
            commitment=commitment(JobId(ask.job), ANSWER[: first + count], first),
            price_in=offer.price_in,
            price_out=offer.price_out,
            amount=attempt_amount(self.offer.price, len(PROMPT), first, count) if count else 0,
            finish=finish,
            issued_at=int(NOW),
            tier=2,
        )
        return receipt.sign(RECORD.court_domain, self.key).pack()

    def _note(self, voucher: bytes) -> None:
        if voucher:
            signed = unpack(Voucher, voucher)
            signed.check(RECORD.settlement_domain, PAYER.address)
            assert signed.value.cumulative >= self.paid
            self.paid = signed.value.cumulative


class World:
    def __init__(self, net: MemoryNetwork, hosts: list[Host], purse: Purse, dispatcher: Dispatcher) -> None:
        self.net, self.hosts, self.purse, self.dispatcher = net, hosts, purse, dispatcher
        self._ended: list[Ended] = []
        dispatcher.on_end = self._ended.append

    @property
    def ended(self) -> list[Ended]:
        """The accounts of all jobs, once what they come to is signed for."""
        self.dispatcher.funds.tab.sign_all()
        return self._ended

    async def ask(self, limit: int = 10**9, max_tokens: int = 100) -> list[Event]:
        request = chat_request(max_tokens=max_tokens)
        payer = Payer(PAYER, PAYER.address, Wei(limit))
        agent = self.hosts[0].offer.agent
        return [event async for event in self.dispatcher.run(payer, Ask(agent, request), job_id())]

    def promised(self, host: Host) -> int:
        key = ChannelKey(PAYER.address, host.key.address, host.offer.terms, 0)
        return next((channel.cumulative for other, channel in self.purse.channels(PAYER.address) if other == key), 0)


@asynccontextmanager
async def world(
    *tricks: "Trick | Host",
    step: int = 1,
    seed: int = 0,
    limits: Limits | None = None,
    purse: Path | str = ":memory:",
) -> AsyncIterator[World]:
    net = MemoryNetwork(seed=seed)
    hosts = [
        trick if isinstance(trick, Host) else Host(key(f"host {i}"), trick, step) for i, trick in enumerate(tricks)
    ]
    directory, held = Directory(needs_beats=False), Purse(purse, RECORD.settlement_domain)
    transports = []
    for host in hosts:
        transport = net.transport(host.key)
        transport.handle(JOB, host.serve)
        endpoint = await transport.listen("/ip4/127.0.0.1/tcp/0")
        changed = msgspec.structs.replace(host.offer.detail, endpoints=(endpoint,))
        host.offer = with_changes(host.offer, detail=changed)
        directory.put(host.offer)
        transports.append(transport)
    mine = net.transport(PAYER)
    limits = limits or Limits(attempts=4)
    dispatcher = Dispatcher(mine, directory, held, RECORD, lambda: NOW, random.Random(seed), limits)
    yield World(net, hosts, held, dispatcher)
    await dispatcher.close()
    for transport in [mine, *transports]:
        await transport.close()
    held.close()


def watch(purse: Path, room: int = 1 << 30) -> None:
    """From now on counts the vouchers that are written into this file, and lets so many in."""
    with closing(sqlite3.connect(purse)) as file:
        file.executescript(
            f"""
            drop trigger if exists watch; create table if not exists written (n integer);
            delete from written; insert into written values (0);
            create trigger watch before insert on channels when new.voucher is not coalesce((select voucher
            from channels where signer=new.signer and host=new.host and terms=new.terms and epoch=new.epoch), x'')
            begin
                update written set n = n + 1;
                select raise(abort, 'the disk is full') from written where n > {room};
            end;
            """
        )


def written(purse: Path) -> int:
    with closing(sqlite3.connect(purse)) as file:
        return int(file.execute("select n from written").fetchone()[0])


def simulate(play: Callable[[], Awaitable[None]]) -> None:
    run_virtual(play())  # type: ignore[arg-type]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


WHOLE = "".join(f"{i} " for i in ANSWER)


class Paced(Host):
    """Answers after `first` seconds, then a token every `gap`; falls silent at token `sticks`; stops when cancelled."""

    def __init__(self, label: str, first: float = 0.01, gap: float = 0.001, sticks: int = -1) -> None:
        super().__init__(key(label))
        self.first, self.gap, self.sticks = first, gap, sticks
        self.stopped = 0
        self.deaf = False
        self.streams: list[asyncio.Event] = []

    async def _answer(self, messages: MessageStream[Open | Pay], ask: Open) -> None:
        stopping = asyncio.Event()
        self.streams.append(stopping)
        listener = asyncio.ensure_future(self._listen(messages, stopping))
        first = at = len(ask.emitted)
        await _rest(stopping, self.first)
        while at < len(ANSWER) and not stopping.is_set():
            if at == self.sticks:
                await stopping.wait()
                break
            rolling = roll(rolling_start(JobId(ask.job)), ANSWER[: at + 1])
            messages.send(Tokens(at, (ANSWER[at],), f"{ANSWER[at]} ", rolling))
            at += 1
            if (at - first) % 32 == 0:
                messages.send(Chunk(self._receipt(ask, at - first, Finish.RUNNING)))
            await _rest(stopping, self.gap)
        with suppress(NetError):
            messages.send(Done(self._receipt(ask, at - first, Finish.STOP if at == len(ANSWER) else Finish.CANCELLED)))
        await listener

    async def _listen(self, messages: MessageStream[Open | Pay], stopping: asyncio.Event) -> None:
        with suppress(NetError):
            while (message := await messages.recv()) is not None:
                if isinstance(message, Pay):
                    self._note(message.voucher)
                elif isinstance(message, Cancel) and not self.deaf:
                    self.stopped += 1
                    stopping.set()
        stopping.set()


async def _rest(stopping: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


async def ask(w: World, label: str = "job", **changes: object) -> list[Event]:
    payer = Payer(PAYER, PAYER.address, Wei(10**9))
    wanted = Ask(w.hosts[0].offer.agent, chat_request(max_tokens=100), **changes)  # type: ignore[arg-type]
    return [event async for event in w.dispatcher.run(payer, wanted, job_id(label))]


def prefer(w: World, *hosts: Host) -> None:
    """Choose these first, in this order."""
    for rank, host in enumerate(hosts):
        w.dispatcher.directory.host(host.key.address).failures = rank


async def learn(w: World, *hosts: Host, jobs: int = 25) -> None:
    """So many jobs on each of these, so that the dispatcher knows their paces."""
    everyone = list(w.hosts)
    for host in hosts:
        prefer(w, host, *(other for other in everyone if other is not host))
        for n in range(jobs):
            await ask(w, f"{host.key.address.hex()} {n}")
            prefer(w, host, *(other for other in everyone if other is not host))


def codes(events: list[Event]) -> list[str]:
    return [event.code for event in events if isinstance(event, Moved)]


def ended(events: list[Event]) -> Ended:
    assert isinstance(events[-1], Ended)
    return events[-1]
