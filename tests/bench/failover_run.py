"""Streams through the real dispatcher over hosts that break off, each compared with what an unbroken run gives."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from factories import key, network, with_changes
from lading.core.failover import Limits
from lading.dispatch import Ask, Directory, Dispatcher, Ended, Moved, Payer, Piece, Purse
from lading.dispatch.events import Event
from lading_net.ports import Transport
from lading_protocol.errors import LadingError
from lading_protocol.ids import JobId, Wei
from lading_protocol.messages import JOB, ChatRequest, Message, Sampler
from lading_protocol.pricing import attempt_amount
from lading_protocol.transcript import sha256

from .failover_host import Answerer, Fault, Faults, Host

RECORD = network()
PAYER = key("payer")
HOSTS = 6
TOKENS = 24
SCHEMA = (
    b'{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"array","items":{"type":"boolean"},'
    b'"maxItems":3}},"required":["a","b"],"additionalProperties":false}'
)


class Tally(msgspec.Struct):
    """What came of a run. `gaps` are seconds between the tokens on both sides of a move, `steady` between others."""

    streams: int = 0
    tokens: int = 0
    wrong: list[str] = []
    moves: int = 0
    gaps: list[float] = []
    steady: list[float] = []
    seconds: float = 0.0


class Fleet:
    def __init__(self, dispatcher: Dispatcher, directory: Directory, hosts: list[Host]) -> None:
        self.dispatcher, self.directory, self.hosts = dispatcher, directory, hosts
        self._number = 0

    @property
    def injected(self) -> int:
        return sum(self.hosts[0].faults.injected.values())

    def injected_by_kind(self) -> dict[Fault, int]:
        return self.hosts[0].faults.injected

    def behave(self, faults: Faults, *, pause: float = 0.0, burst: int = 4) -> None:
        for host in self.hosts:
            host.faults, host.pause, host.burst = faults, pause, burst

    async def run(self, streams: int, at_once: int, real: int = 0) -> Tally:
        """So many streams; every `real`-th of them is one of the node's own generation."""
        tally, places = Tally(), asyncio.Semaphore(at_once)
        began = time.perf_counter()
        moved = self.dispatcher.failover.moves

        async def one(number: int) -> None:
            async with places:
                await self._stream(number, tally, real=bool(real) and number % real == 0)

        numbers = range(self._number, self._number + streams)
        self._number += streams
        await asyncio.gather(*map(one, numbers))
        await self.dispatcher.close()
        tally.moves = self.dispatcher.failover.moves - moved
        tally.seconds = time.perf_counter() - began
        return tally

    async def _stream(self, number: int, tally: Tally, *, real: bool) -> None:
        request, job = request_of(number, real=real), JobId(sha256(f"job {number}".encode()))
        payer = Payer(PAYER, PAYER.address, Wei(10**15))
        reader = _Reader(number, tally, self.directory)
        try:
            await self.dispatcher.carry(payer, Ask(self.hosts[0].offer.agent, request), reader, job)
        except LadingError as error:
            tally.wrong.append(f"{number}: {error}")
        tally.streams += 1
        tally.tokens += len(reader.ids)
        self._compare(number, request, job, (reader.ids, "".join(reader.text), reader.ended), tally)

    def _compare(
        self, number: int, request: ChatRequest, job: JobId, got: tuple[list[int], str, Ended | None], tally: Tally
    ) -> None:
        ids, text, ended = got
        whole = Answerer(request, (), job)
        pieces = list(whole.pieces(8))
        expected = [one for piece in pieces for one in piece.ids]
        if ids != expected or text != "".join(piece.text for piece in pieces):
            tally.wrong.append(f"{number}: another answer than unbroken, from token {_differ(ids, expected)} on")
        elif ended is not None and ended.finish != whole.finish:
            tally.wrong.append(f"{number}: finish {ended.finish.name}")
        if ended is not None:
            self._check_account(number, ended, tally)

    def _check_account(self, number: int, ended: Ended, tally: Tally) -> None:
        """Each token is paid once, the prompt too, each to the host that delivered it."""
        at = 0
        for part in ended.parts:
            due = attempt_amount(self.hosts[0].offer.price, ended.prompt_tokens, part.first, part.tokens)
            if part.first != at or part.amount != (due if part.tokens else 0):
                tally.wrong.append(f"{number}: the account of the part from {part.first} on")
            at += part.tokens
        if at != len(ended.emitted):
            tally.wrong.append(f"{number}: {at} tokens are paid of {len(ended.emitted)}")


class _Reader:
    """Hears what becomes of one stream. Hosts that broke may be chosen again at once: they break on purpose, as long as
    the run lasts."""

    def __init__(self, number: int, tally: Tally, directory: Directory) -> None:
        self._number, self._tally, self._directory = number, tally, directory
        self._last, self._moved = 0.0, False
        self.ids: list[int] = []
        self.text: list[str] = []
        self.ended: Ended | None = None

    def hear(self, event: Event) -> None:
        match event:
            case Piece():
                now = time.perf_counter()
                if self._last:
                    (self._tally.gaps if self._moved else self._tally.steady).append(now - self._last)
                if event.first != len(self.ids):
                    self._tally.wrong.append(f"{self._number}: index {event.first} where {len(self.ids)} is next")
                self._last, self._moved = now, False
                self.ids += event.ids
                self.text.append(event.text)
            case Moved():
                self._moved = True
                liar = self._directory.host(event.host)
                liar.lied_until, liar.forgiven = 0.0, 0
                self._directory.forgive(event.host, time.time())
            case Ended():
                self.ended = event
            case _:
                pass

    def lull(self) -> bool:
        return True

    async def drain(self) -> None:
        """It is never full."""


def request_of(number: int, *, real: bool) -> ChatRequest:
    if not real:
        return ChatRequest((Message("user", f"quick {number}"),), TOKENS, Sampler(bytes(32)))
    seed = sha256(b"seed %d" % number)
    kind = random.Random(number).randrange(3)
    sampler = Sampler(seed, grammar=SCHEMA) if kind == 0 else Sampler(seed, temperature=0.8, top_p=0.9)
    stop = (" sings", "a fox", "é.") if kind == 1 else ()
    return ChatRequest((Message("user", f"real {number}"),), 2 * TOKENS, sampler, stop)


@asynccontextmanager
async def fleet(
    transport: Callable[[object], Transport], where: str, limits: Limits | None = None
) -> AsyncIterator[Fleet]:
    """Hosts and a dispatcher over these transports; `where` is what each host listens on."""
    directory, purse = Directory(needs_beats=False), Purse(":memory:", RECORD.settlement_domain)
    hosts = [Host(key(f"host {n}"), RECORD) for n in range(HOSTS)]
    transports = []
    for host in hosts:
        made = transport(host.key)
        made.handle(JOB, host.serve)
        endpoint = await made.listen(where)
        detail = msgspec.structs.replace(host.offer.detail, endpoints=(endpoint,))
        host.offer = with_changes(host.offer, detail=detail)
        directory.put(host.offer)
        transports.append(made)
    mine = transport(PAYER)
    dispatcher = Dispatcher(mine, directory, purse, RECORD, time.time, random.Random(1), limits)
    try:
        yield Fleet(dispatcher, directory, hosts)
    finally:
        await dispatcher.close()
        for made in (mine, *transports):
            await made.close()
        purse.close()


def _differ(got: list[int], expected: list[int]) -> int:
    for at, (one, other) in enumerate(zip(got, expected, strict=False)):
        if one != other:
            return at
    return min(len(got), len(expected))
